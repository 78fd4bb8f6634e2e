"""What a run over the guests did, and its failure where a guest has no new backup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.errors import BackupError
from tasks.core.report.guests import GuestReport
from tasks.proxmox.backup_guest import GuestBackup
from tasks.proxmox.retention import Pruned


@dataclass(frozen=True, slots=True)
class GuestRun:
    """What was done at one guest; `error` is why it was not all."""

    vmid: int
    storage: str
    made: GuestBackup | None
    pruned: Pruned | None
    error: BackupError | None

    @property
    def report(self) -> GuestReport:
        """Give it in the words and numbers of a report."""
        made, pruned = self.made, self.pruned
        return GuestReport(
            str(made.guest) if made else f"guest {self.vmid}",
            made.copy.name if made else "", self.storage, made.copy.bytes if made else 0, made.seconds if made else 0.0,
            made.former if made else "", made.warnings if made else (), pruned.decisions if pruned else (),
            pruned.paused if pruned else "", str(self.error) if self.error else "",
        )  # fmt: skip


class GuestsFailed(BackupError):
    """Guests have no new backup, or what belongs to it failed; `runs` says what was done at each."""

    def __init__(self, runs: Sequence[GuestRun]) -> None:
        failed = [each.error for each in runs if each.error is not None]
        super().__init__("; ".join(each.message for each in failed), hint=failed[0].hint)
        self.runs = tuple(runs)
        self.exit_code = failed[0].exit_code if len(failed) == len(runs) else 1
