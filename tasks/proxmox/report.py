"""What a run over the guests did."""

from __future__ import annotations

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
