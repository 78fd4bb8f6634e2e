"""The step that brings a target up to date: send what is missing, newest first, and every record that has changed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from tasks.adapters.archive.archive_source import record_path_of
from tasks.adapters.archive.repository import Backup, list_backups
from tasks.adapters.copies.locking import extend_lock
from tasks.adapters.copies.rclone import TargetFailed, best_hash
from tasks.adapters.copies.sending import Way, send_archive, send_record
from tasks.adapters.copies.target_state import read_target_state, write_target_state
from tasks.adapters.host.outside_files import RECORD, read_outside
from tasks.copies.targets import SeenTarget, entry_of, reach_target, require_known_target, see_target, wanted_targets
from tasks.core.archive.authenticity import Trust, authenticity_of
from tasks.core.archive.manifest import Record, parse_record
from tasks.core.copies.locks import lock_end
from tasks.core.copies.plan import plan_sending
from tasks.core.copies.state import CopyEntry, TargetState, is_locked
from tasks.core.errors import BackupError, Refused
from tasks.core.policy.retention import Decision
from tasks.core.policy.settings import CopyTarget
from tasks.progress import progress
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import look_at
from tasks.step import step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TargetCopied:
    """What a run did at a target: which backups it sent, of how many bytes, and whose records it brought up to date.

    `locked` says until when the target keeps each copy, as it answered, and `lock_extended` for which of them that was
    made longer. `may_go` tells whether there is anything that retention may remove; `failed` why a backup could not be
    sent for reasons of its own, which kept no other from being sent.
    """

    target: str
    sent: tuple[str, ...] = ()
    sent_bytes: int = 0
    records: tuple[str, ...] = ()
    there: int = 0
    locked: tuple[tuple[str, datetime], ...] = ()
    lock_extended: tuple[str, ...] = ()
    may_go: bool = False
    notes: tuple[str, ...] = ()
    failed: str = ""


@step(name="copy", run_name="copy to {target}")
def copy_to_target(config: InstallationConfig, target: str, *, now: datetime, accept: bool = False) -> TargetCopied:
    """Send a target what it lacks of the installation's own backups, and remember what has arrived.

    Only authentic, own backups go. An archive's record goes last: a reader there sees whole backups only.
    """
    (wanted,) = wanted_targets(config, target)
    remote = reach_target(config, wanted)
    seen = require_known_target(config, wanted, remote, see_target(config, wanted, remote, now=now), accept=accept)
    local_backups = {each.name: each for each in list_backups(config.repository)}
    local = look_at(config, list(local_backups.values()), now=now)
    retention = wanted.retention or config.settings.retention
    plan = plan_sending(local.candidates, seen.candidates, retention, now=now, whole=seen.whole)

    way = Way(remote, wanted.part_bytes, None, best_hash(remote))
    decisions = {each.name: each for each in plan.retention.decisions}
    work = _Work(config, wanted, way, decisions, _known(seen), now)
    missing = [local_backups[name] for name in plan.send]
    with progress(f"copy to {target}", expected_bytes=sum(each.bytes for each in missing) or None) as tell:
        for each in missing:
            try:
                work.send(each, seen, local.trust, tell)
            except Refused as error:  # this one alone: its bytes, or its name
                logger.warning("%s", error.message)
                work.failed.append(error.message)
    for name in sorted(seen.whole.keys() & {each.manifest.name for each in (*local.records, *local.system)}):
        work.refresh(local_backups[name], seen, local.trust)
    for name in sorted(seen.whole.keys() - set(work.sent)):
        work.lock_longer(name, seen)
    return work.finish(seen, may_go=any(name in seen.whole for name in plan.retention.removed))


@dataclass
class _Work:
    """One run's work at one target, and what is remembered of it so far."""

    config: InstallationConfig
    target: CopyTarget
    way: Way
    decisions: Mapping[str, Decision]
    state: TargetState
    now: datetime
    sent: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    lock_extended: list[str] = field(default_factory=list)
    sent_bytes: int = 0

    def send(self, backup: Backup, seen: SeenTarget, trust: Trust, tell: Callable[[int], None]) -> None:
        """Send one backup: its archive, then its record."""
        content, record = _own_record(backup.path, backup, trust)
        if record is None:
            return
        if (whose := seen.own.authenticity.get(backup.name)) is not None and whose.state == "foreign":
            raise Refused(
                f"target {self.target.name} has a backup of the name {backup.name} that is another's: {whose.reason}"
            )
        stored, known = seen.content.stored.get(backup.name), self.state.copies.get(backup.name)
        before = self.sent_bytes
        way = replace(self.way, locked_until=self._lock_end(backup.name, self.now, None))
        arrived = send_archive(
            way, backup.path, record, stored, known,
            note=lambda entry: self._note(backup.name, entry), on_bytes=lambda count: tell(before + count),
        )  # fmt: skip
        self.sent_bytes += arrived.sent_bytes
        newer, verdict = _own_record(backup.path, backup, trust)  # a verification may have ended meanwhile
        if verdict is not None:
            content, record = newer, verdict
        replaces = stored is not None and stored.record is not None
        self._send_record(way, backup.name, content, record, arrived.entry, replaces=replaces)
        self.sent.append(backup.name)
        logger.info(
            "Copied %s to %s (%d bytes sent)", record_path_of(backup.path).name, self.target.name, arrived.sent_bytes
        )

    def refresh(self, backup: Backup, seen: SeenTarget, trust: Trust) -> None:
        """Send the record of a backup that is there where it says something new."""
        content, record = _own_record(backup.path, backup, trust)
        there = seen.whole[backup.name]
        if record is None or hashlib.sha256(content).hexdigest() == there.record_sha256:
            return
        entry = self.state.copies.get(backup.name) or entry_of(there)
        way = replace(self.way, locked_until=self._lock_of(backup.name, entry))
        try:
            self._send_record(way, backup.name, content, record, entry, replaces=True)
        except TargetFailed as error:
            if not error.is_refusal:
                raise
            self.notes.append(f"the record of {backup.name} there stays as it was: {error.message}")
            return
        self.records.append(backup.name)

    def lock_longer(self, name: str, seen: SeenTarget) -> None:
        """Have the target keep a copy longer that retention keeps longer than its lock lasts."""
        entry, stored = self.state.copies[name], seen.whole[name].stored
        until = self._lock_of(name, entry)
        if until is None or until == entry.locked_until:
            return
        files = [each.name for each in (*stored.parts, *([stored.record] if stored.record else []))]
        try:
            locked_until = extend_lock(self.way.remote, files, until)
        except (Refused, TargetFailed) as error:
            if error.transient:
                raise
            logger.warning("%s", error.message)
            self.failed.append(error.message)
            return
        self._note(name, entry.model_copy(update={"locked_until": locked_until}))
        self.lock_extended.append(name)
        logger.info("Target %s keeps the copy of %s until %s", self.target.name, name, locked_until)

    def finish(self, seen: SeenTarget, *, may_go: bool) -> TargetCopied:
        """Note which copies are missing although nobody here removed them, and tell what was done."""
        dismissed = {name for name, each in seen.content.backups.items() if each.record.dismissed}
        for name in self.state.copies.keys() - seen.whole.keys() - set(self.sent) - dismissed:
            entry = self.state.copies[name]
            if entry.copied_at is not None and entry.problem != "damaged":
                self.state = self.state.with_copy(name, entry.model_copy(update={"problem": "missing"}))
        again = [name for name in self.sent if name in seen.state.copies and seen.state.copies[name].copied_at]
        if again:
            self.notes.append(f"sent again, for they were missing or damaged there: {', '.join(sorted(again))}")
        failed = "; ".join(self.failed)
        self.state = self.state.model_copy(
            update={"looked_at": self.now, "error": failed, "error_is_lasting": bool(failed)}
        )
        self._write()
        copies = self.state.copies
        there = sum(each.counts for each in copies.values())
        begun = any(each.copied_at is None for each in copies.values())
        locks = [
            (name, each.locked_until) for name, each in sorted(copies.items()) if each.counts and each.locked_until
        ]
        return TargetCopied(
            self.target.name,
            tuple(self.sent),
            self.sent_bytes,
            tuple(self.records),
            there,
            tuple((name, until) for name, until in locks if until > self.now),
            tuple(self.lock_extended),
            may_go or begun,
            tuple(self.notes),
            failed,
        )

    def _lock_end(self, name: str, sent_at: datetime, locked_until: datetime | None) -> datetime | None:
        return lock_end(
            self.decisions[name], lock_days=self.target.lock_days, sent_at=sent_at, locked_until=locked_until, now=self.now
        )  # fmt: skip

    def _lock_of(self, name: str, entry: CopyEntry) -> datetime | None:
        """Say until when a copy that is there is to be locked: never shorter than it is."""
        held = entry.locked_until if is_locked(entry, self.now) else None
        return self._lock_end(name, entry.copied_at or self.now, held) or (held if self.target.lock_days else None)

    def _send_record(
        self, way: Way, name: str, content: bytes, record: Record, entry: CopyEntry, *, replaces: bool
    ) -> None:
        found = send_record(way, record_path_of(Path(record.file)).name, content, replaces=replaces)
        until = entry.locked_until
        if until is not None and found.locked_until is not None:
            until = min(until, found.locked_until)
        changes = {
            "copied_at": entry.copied_at if entry.copied_at and not entry.problem else self.now, "locked_until": until,
            "record": hashlib.sha256(content).hexdigest(), "revision": record.revision, "problem": "",
        }  # fmt: skip
        self._note(name, entry.model_copy(update=changes))

    def _note(self, name: str, entry: CopyEntry) -> None:
        self.state = self.state.with_copy(name, entry)
        self._write()

    def _write(self) -> None:
        write_target_state(self.config.id, self.target.name, self.state)


def note_failure(config: InstallationConfig, target: str, error: BackupError) -> None:
    """Remember why a target could not be brought up to date; what waiting could cure is told once it is overdue."""
    state = read_target_state(config.id, target)
    said = " ".join(str(error).splitlines())
    changes = {"error": said, "error_is_lasting": not error.transient}
    write_target_state(config.id, target, state.model_copy(update=changes))


def _known(seen: SeenTarget) -> TargetState:
    """Give what is remembered, and entries for what is there although nothing is."""
    state = seen.state
    for name, there in seen.whole.items():
        entry = state.copies.get(name)
        if entry is None or entry.copied_at is None:
            state = state.with_copy(name, entry_of(there))
        elif entry.problem == "missing":
            state = state.with_copy(name, entry.model_copy(update={"problem": ""}))
    return state


def _own_record(path: Path, backup: Backup, trust: Trust) -> tuple[bytes, Record | None]:
    """Read a backup's record as it is now, and None for it where it is gone, or no longer the installation's own (which is logged)."""
    try:
        content, _ = read_outside(record_path_of(path), RECORD)
        file_bytes = path.stat().st_size
    except FileNotFoundError:
        logger.info("%s was removed meanwhile", path.name)
        return b"", None
    record = parse_record(content, source=str(record_path_of(path)))
    found = authenticity_of(trust, record, name=backup.name, file_bytes=file_bytes)
    if not found.counts:
        logger.warning("%s is not copied: %s", path.name, found.reason or found)
        return content, None
    return content, record
