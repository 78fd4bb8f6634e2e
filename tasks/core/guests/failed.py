"""The failure of a run over several guests, no matter who backs them up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from tasks.core.errors import BackupError


class MayHaveFailed(Protocol):
    """What was done at one guest; `error` is why that was not all."""

    @property
    def error(self) -> BackupError | None: ...


Run = TypeVar("Run", bound=MayHaveFailed)


class GuestsFailed(BackupError, Generic[Run]):
    """Guests have no new backup, or what belongs to it failed; `runs` says what was done at each."""

    def __init__(self, runs: Sequence[Run]) -> None:
        failed = [each.error for each in runs if each.error is not None]
        super().__init__("; ".join(each.message for each in failed), hint=failed[0].hint)
        self.runs = tuple(runs)
        self.exit_code = failed[0].exit_code if len(failed) == len(runs) else 1
