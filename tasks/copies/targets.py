"""A target at work: reached, known as the one that copies went to before, and its backups judged."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from tasks.adapters.copies.rclone import Remote, reach, send
from tasks.adapters.copies.target import MARKER_NAME, TargetContent, There, look_at_target
from tasks.adapters.copies.target_state import read_target_state, write_target_state
from tasks.core.archive.authenticity import Trust
from tasks.core.copies.state import CopyEntry, TargetState
from tasks.core.errors import Refused, UsageError
from tasks.core.policy.chains import missing_links
from tasks.core.policy.copy_places import is_directory
from tasks.core.policy.retention import Candidate
from tasks.core.policy.settings import CopyTarget
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import OwnBackups, look_at, trust_of

ACCEPT = "mailarchiver-backup copy TARGET --accept"


@dataclass(frozen=True, slots=True)
class SeenTarget:
    """A target as a run sees it: what lies there, which of it is the installation's own, and what is remembered."""

    content: TargetContent
    own: OwnBackups
    state: TargetState

    @property
    def whole(self) -> dict[str, There]:
        """Give the installation's own backups that are wholly there, as far as is known, by their names; with all that they need."""
        ours = {each.name for each in self.own.candidates if not each.foreign}
        found = {
            name: each for name, each in self.content.backups.items()
            if name in ours and each.is_whole and not self._known_as_damaged(name)
        }  # fmt: skip
        there = {name: each.record.sha256 for name, each in found.items()}
        return {name: each for name, each in found.items() if not missing_links(each.record.manifest, there)}

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Give what lies there as retention sees it."""
        return self.own.candidates

    def _known_as_damaged(self, name: str) -> bool:
        entry = self.state.copies.get(name)
        return entry is not None and entry.problem == "damaged"


def wanted_targets(config: InstallationConfig, name: str) -> list[CopyTarget]:
    """Give the targets of this name, or all; raise UsageError where there is none."""
    known = [each.name for each in config.settings.copies]
    if not known:
        raise UsageError(
            f"{config.id} has no targets to copy to",
            hint="`copies` in the settings lists them: see `mailarchiver-backup init`",
        )
    found = [each for each in config.settings.copies if name in ("", each.name)]
    if not found:
        raise UsageError(f"{config.id} has no target {name!r}", hint=f"known: {', '.join(known)}")
    return found


def reach_target(config: InstallationConfig, target: CopyTarget) -> Remote:
    """Give a target as rclone reaches it; raise Refused where it is a directory that is not there."""
    if is_directory(target.remote) and not Path(target.remote).is_dir():
        raise Refused(
            f"target {target.name}: there is no directory {target.remote}",
            hint="is its disk mounted? A new one is made by hand, so that copies never land below a mount that is gone",
        )
    return reach(target.name, target.remote, config.settings.rclone_config, bandwidth=target.bandwidth)


def see_target(config: InstallationConfig, target: CopyTarget, remote: Remote, *, now: datetime) -> SeenTarget:
    """Look at a target and judge its backups; they are judged by their signatures alone, for what was removed here may stay there."""
    state = read_target_state(config.id, target.name)
    content = look_at_target(remote)
    backups = [each.backup for each in content.backups.values()]
    return SeenTarget(content, look_at(config, backups, now=now, trust=_trust_at(config, state)), state)


def require_known_target(
    config: InstallationConfig, target: CopyTarget, remote: Remote, seen: SeenTarget, *, accept: bool
) -> SeenTarget:
    """Mark a target that is new, and require the mark of one that copies went to before.

    Raise Refused where it is missing: another disk is mounted there, or none; `accept` takes the target as it is now.
    """
    if seen.content.has_marker and seen.state.marker and not accept:
        return seen
    if seen.state.marker and not accept:
        raise Refused(
            f"target {target.name} is not the one that copies went to before: its file {MARKER_NAME} is missing",
            hint=f"is its disk mounted? If it was emptied or replaced on purpose: {ACCEPT.replace('TARGET', target.name)}",
        )
    state = seen.state
    if not seen.content.has_marker:
        text = {"id": secrets.token_hex(16), "what": "a target of mailarchiver-backup: leave this file in it"}
        content = json.dumps(text).encode() + b"\n"
        send(remote, MARKER_NAME, [content], len(content))
        state = state.model_copy(update={"marker": hashlib.sha256(content).hexdigest()[:16]})
    else:
        state = state.model_copy(update={"marker": state.marker or "found"})
    if accept:  # what it lacks is missed no longer
        state = state.without([name for name in state.copies if name not in seen.content.backups])
    write_target_state(config.id, target.name, state)
    return replace(seen, state=state)


def entry_of(there: There) -> CopyEntry:
    """Describe a copy of which nothing is remembered, by what lies there; it is due to be read back."""
    record = there.record
    return CopyEntry(
        file=record.file, bytes=record.bytes, sha256=record.sha256, created_at=record.manifest.created_at,
        copied_at=record.manifest.created_at, record=there.record_sha256, revision=record.revision, of_system=record.manifest.is_system,
    )  # fmt: skip


def _trust_at(config: InstallationConfig, state: TargetState) -> Trust:
    revisions = {name: each.revision for name, each in state.copies.items()}
    return replace(trust_of(config), made=None, revisions=revisions)
