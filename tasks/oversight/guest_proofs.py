"""What is told of tests of guests' backups: the verdict of each, remembered for status and metrics, and the failure of a run that refutes one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tasks.adapters.proxmox.guests_state import add_guest_proof
from tasks.core.errors import BackupError
from tasks.core.proxmox.proofs import GuestProof
from tasks.core.report.guests import proofs_report
from tasks.oversight.reports import show_report
from tasks.oversight.run_page import show_status
from tasks.proxmox.look import look_at_guests
from tasks.run.config import InstallationConfig
from tasks.step import step
from tasks.surroundings import surroundings


class GuestsNotProven(BackupError):
    """Backups of guests were not proven; `proofs` says how each test ended."""

    def __init__(self, proofs: Sequence[GuestProof]) -> None:
        failed = [each for each in proofs if each.verdict == "failed"]
        super().__init__("; ".join(f"guest {each.guest}: {each.problem}" for each in failed))
        self.proofs = tuple(proofs)


@step(name="record verdict on guest's backup")
def record_proof(config: InstallationConfig, proof: GuestProof) -> None:
    """Remember how a test ended."""
    add_guest_proof(config.id, proof)


def report_proofs(config: InstallationConfig, proofs: Sequence[GuestProof]) -> None:
    """Show how the tests ended, announce it (`mailarchiver.proxmox.verified`), and bring the status up to date, which raises alarms.

    Raise GuestsNotProven where one failed: no run may look green that found something.
    """
    look_at_guests(config, datetime.now(UTC))
    show_report(f"proxmox-verification-{config.id}", proofs_report(config.id, proofs))
    surroundings().announce(
        "mailarchiver.proxmox.verified", config.id, {"guests": {str(each.guest): each.verdict for each in proofs}}
    )
    show_status(config)
    if any(each.verdict == "failed" for each in proofs):
        raise GuestsNotProven(proofs)
