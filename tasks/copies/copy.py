"""The step that brings a target up to date: send what is missing, newest first, and every record that has changed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from tasks.adapters.archive.archive_source import record_path_of
from tasks.adapters.archive.repository import Backup, list_backups
from tasks.adapters.copies.rclone import Remote, TargetFailed, best_hash
from tasks.adapters.copies.sending import Way, send_archive, send_record
from tasks.adapters.copies.target_state import read_target_state, write_target_state
from tasks.adapters.host.outside_files import RECORD, read_outside
from tasks.copies.targets import SeenTarget, entry_of, reach_target, require_known_target, see_target, wanted_targets
from tasks.core.archive.authenticity import Trust, authenticity_of
from tasks.core.archive.manifest import Record, parse_record
from tasks.core.copies.plan import plan_sending
from tasks.core.copies.state import CopyEntry, TargetState
from tasks.core.errors import BackupError, Refused
from tasks.core.policy.settings import CopyTarget
from tasks.progress import progress
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import look_at
from tasks.step import step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TargetCopied:
    """What a run did at a target: which backups it sent, of how many bytes, and whose records it brought up to date.

    `may_go` tells whether there is anything that retention may remove; `failed` why a backup could not be sent for
    reasons of its own, which kept no other from being sent.
    """

    target: str
    sent: tuple[str, ...] = ()
    sent_bytes: int = 0
    records: tuple[str, ...] = ()
    there: int = 0
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

    work = _Work(config, wanted, _way(remote, wanted, now), _known(seen), now)
    missing = [local_backups[name] for name in plan.send]
    with progress(f"copy to {target}", expected_bytes=sum(each.bytes for each in missing) or None) as tell:
        for each in missing:
            try:
                work.send(each, seen, local.trust, tell)
            except Refused as error:  # this one alone: its bytes, or its name
                logger.warning("%s", error.message)
                work.failed.append(error.message)
    for name in sorted(seen.whole.keys() & {each.manifest.name for each in local.records}):
        work.refresh(local_backups[name], seen, local.trust)
    return work.finish(seen, may_go=any(name in seen.whole for name in plan.retention.removed))


@dataclass
class _Work:
    """One run's work at one target, and what is remembered of it so far."""

    config: InstallationConfig
    target: CopyTarget
    way: Way
    state: TargetState
    now: datetime
    sent: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
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
        arrived = send_archive(
            self.way, backup.path, record, stored, known,
            note=lambda entry: self._note(backup.name, entry), on_bytes=lambda count: tell(before + count),
        )  # fmt: skip
        self.sent_bytes += arrived.sent_bytes
        newer, verdict = _own_record(backup.path, backup, trust)  # a verification may have ended meanwhile
        if verdict is not None:
            content, record = newer, verdict
        self._send_record(backup.name, content, record, arrived.entry)
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
        try:
            self._send_record(backup.name, content, record, self.state.copies.get(backup.name) or entry_of(there))
        except TargetFailed as error:
            if not error.is_refusal:
                raise
            self.notes.append(f"the record of {backup.name} there stays as it was: {error.message}")
            return
        self.records.append(backup.name)

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
        there = sum(each.counts for each in self.state.copies.values())
        begun = any(each.copied_at is None for each in self.state.copies.values())
        return TargetCopied(
            self.target.name,
            tuple(self.sent),
            self.sent_bytes,
            tuple(self.records),
            there,
            may_go or begun,
            tuple(self.notes),
            failed,
        )

    def _send_record(self, name: str, content: bytes, record: Record, entry: CopyEntry) -> None:
        found = send_record(self.way, record_path_of(Path(record.file)).name, content)
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


def _way(remote: Remote, target: CopyTarget, now: datetime) -> Way:
    locked_until = now + timedelta(days=target.lock_days) if target.lock_days else None
    return Way(remote, target.part_bytes, locked_until, best_hash(remote))


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
