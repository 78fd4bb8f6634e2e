"""What a run over guests did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.core.archive.manifest import Record
from tasks.core.errors import BackupError


@dataclass(frozen=True, slots=True)
class GuestRun:
    """What was done for one guest ("lxc mail"); `error` is why it has no backup."""

    subject: str
    record: Record | None
    error: BackupError | None


def run_of(subject: str, back_up: Callable[[], Record]) -> GuestRun:
    """Back one guest up; its failure keeps no other from its backup."""
    try:
        return GuestRun(subject, back_up(), None)
    except BackupError as error:
        return GuestRun(subject, None, error)
