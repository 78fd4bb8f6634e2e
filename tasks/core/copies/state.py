"""What this host remembers of a target: which backups it sent there, and what was seen of them since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field

from tasks.core.archive.values import Count, Moment, Value

Problem = Literal["", "missing", "damaged"]


class SentPart(Value):
    """A part that arrived: its size, and the digest of what was sent by the hash that the target tells ("" where it tells none)."""

    bytes: Count
    hash: str = ""


class CopyEntry(Value):
    """One backup at a target. Until `copied_at` is set its record is not there, and it counts for nothing.

    `compared`: the target's own hashes were those of the bytes that were sent. `read_at` is when the copy was last read back
    to its end. `locked_until` is what the target itself answers. `record` is the SHA-256 of the record as it was sent last. `of_system`: it is of the system around, and no copy of the database.
    """

    file: str
    bytes: Count
    sha256: str
    created_at: Moment
    parts: dict[str, SentPart] = Field(default_factory=dict)
    copied_at: Moment | None = None
    compared: bool = False
    read_at: Moment | None = None
    locked_until: Moment | None = None
    record: str = ""
    revision: Count = 0
    problem: Problem = ""
    of_system: bool = False

    @property
    def counts(self) -> bool:
        """Tell whether it is a copy that a restore could use, as far as is known."""
        return self.copied_at is not None and not self.problem


class TargetState(Value):
    """A target as it was last seen.

    `marker` is the id of the file that was put there. `error` says why the last run could not do its work, and
    `error_is_lasting` that waiting will not cure it. `refused` is why the target last refused to remove something.
    """

    marker: str = ""
    looked_at: Moment | None = None
    error: str = ""
    error_is_lasting: bool = False
    refused_at: Moment | None = None
    refused: str = ""
    copies: dict[str, CopyEntry] = Field(default_factory=dict)

    def with_copy(self, name: str, entry: CopyEntry) -> TargetState:
        """Give the state with this entry in place of the one before."""
        return self.model_copy(update={"copies": {**self.copies, name: entry}})

    def without(self, names: Iterable[str]) -> TargetState:
        """Give the state without these entries."""
        gone = set(names)
        return self.model_copy(
            update={"copies": {name: each for name, each in self.copies.items() if name not in gone}}
        )


def newest(copies: Mapping[str, CopyEntry]) -> CopyEntry | None:
    """Find the copy of the newest backup of the database among those that count."""
    return max(
        (each for each in copies.values() if each.counts and not each.of_system),
        key=lambda each: each.created_at,
        default=None,
    )


def is_locked(entry: CopyEntry, now: datetime) -> bool:
    """Tell whether the target itself keeps a copy from being removed or changed."""
    return entry.locked_until is not None and entry.locked_until > now


def due_for_reading(copies: Mapping[str, CopyEntry], now: datetime, every_days: int) -> list[str]:
    """Name the copies that are to be read back, the one that was read longest ago first; none where `every_days` is 0."""
    if not every_days:
        return []

    def last(name: str) -> datetime:
        entry = copies[name]
        moments = [each for each in (entry.read_at, entry.copied_at) if each is not None]
        return max(moments)

    due = [name for name, each in copies.items() if each.counts and (now - last(name)).days >= every_days]
    return sorted(due, key=last)
