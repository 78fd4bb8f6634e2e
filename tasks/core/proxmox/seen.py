"""What is remembered of guests' backups as Proxmox VE and its backup servers showed them, no matter who made them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from tasks.core.archive.values import Count, Moment, Name, Value
from tasks.core.proxmox.replies import TaskNow

COPIES_KEPT = 200


class SeenCopy(Value):
    """A backup of a guest at a place: a storage of Proxmox VE, or a datastore of a backup server."""

    guest: Count
    place: Name
    name: Name
    at: Moment
    bytes: Count
    protected: bool = False
    verification: Name = ""

    @property
    def counts(self) -> bool:
        """Tell whether it is a backup as far as is known: something is in it, and no verification refuted it."""
        return self.bytes > 0 and self.verification != "failed"


class SeenTask(Value):
    """How the last task of its kind ended that may concern a guest's backups; `guest` 0: it was for several, or for all."""

    guest: Count
    place: Name
    is_verification: bool = False
    at: Moment
    status: Name

    @property
    def failed(self) -> bool:
        """Tell whether it ended with neither a success nor mere warnings."""
        return self.status != "OK" and not self.status.startswith("WARNINGS")


class SeenJob(Value):
    """A backup job of Proxmox VE that names guests of ours; `mode` is how it takes them."""

    id: Name
    mode: Name
    enabled: bool
    guests: list[int]


class GuestsSeen(Value):
    """All that was seen at the last look. `errors` says of each place that could not be looked at why; what was seen there before stays.

    `uncovered` are guests that no backup job of Proxmox names; None: the token may not ask.
    """

    looked_at: Moment | None = None
    names: dict[str, str] = Field(default_factory=dict)
    copies: Annotated[list[SeenCopy], Field(fail_fast=True)] = Field(default_factory=list)
    tasks: Annotated[list[SeenTask], Field(fail_fast=True)] = Field(default_factory=list)
    jobs: list[SeenJob] = Field(default_factory=list)
    uncovered: list[int] | None = None
    errors: dict[str, str] = Field(default_factory=dict)

    def of(self, guest: int) -> list[SeenCopy]:
        """List a guest's backups, newest first."""
        return sorted((each for each in self.copies if each.guest == guest), key=lambda each: each.at, reverse=True)

    def name_of(self, guest: int) -> str:
        """Name a guest as people do."""
        name = self.names.get(str(guest), "")
        return f"guest {guest}" + (f" ({name})" if name else "")


def last_tasks(place: str, found: Sequence[TaskNow], guests: Sequence[int]) -> list[SeenTask]:
    """Keep of a place's tasks (newest first) the last that ended of each kind and guest: backups (of Proxmox VE or a backup server) and verifications."""
    kept: dict[tuple[int, bool], SeenTask] = {}
    for each in found:
        is_verification = each.kind.startswith("verif")
        guest = 0 if is_verification else guest_of(each)
        if each.running or each.started is None or (each.kind not in ("vzdump", "backup") and not is_verification):
            continue
        if guest in (0, *guests):
            task = SeenTask(
                guest=guest, place=place, is_verification=is_verification, at=each.started, status=each.exit_status
            )
            kept.setdefault((guest, is_verification), task)
    return list(kept.values())


def guest_of(task: TaskNow) -> int:
    """Read which guest a task is about: Proxmox VE writes its id or, for several, nothing; a backup server STORE:ct/ID. 0: not one alone.

    >>> guest_of(TaskNow("", False, "OK", guest="101")), guest_of(TaskNow("", False, "OK", guest="store1:ct/101"))
    (101, 101)
    """
    match = re.fullmatch(r"(?:.*[:/](?:ct|vm)/)?(\d{3,9})", task.guest)
    return int(match[1]) if match else 0
