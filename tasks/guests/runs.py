"""What a run over guests did, and its failure where a guest has no new backup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class GuestsFailed(BackupError):
    """Guests have no new backup; `runs` says what was done for each."""

    def __init__(self, runs: Sequence[GuestRun]) -> None:
        failed = [each.error for each in runs if each.error is not None]
        super().__init__("; ".join(each.message for each in failed), hint=failed[0].hint)
        self.runs = tuple(runs)
        self.exit_code = failed[0].exit_code if len(failed) == len(runs) else 1
