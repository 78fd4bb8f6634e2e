"""Prove guests' backups at Proxmox by restoring them: beside the guest, without a network, and with nothing left behind."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tasks.core.errors import BackupError
from tasks.core.proxmox.proofs import GuestProof
from tasks.oversight.guest_proofs import record_proof, report_proofs
from tasks.prefect_objects import flow
from tasks.proxmox.inside_guest import count_content, hold_applications, neutralise_guest, probe_applications
from tasks.proxmox.prove import Findings, compare_content, guests_to_prove
from tasks.proxmox.trial import choose_copy, restored_guest, start_guest
from tasks.run.config import InstallationConfig
from tasks.run.context import config_of
from tasks.run.history import remembered


@flow(name="proxmox-restore-verification", flow_run_name="verification of guests of {installation}")
def proxmox_restore_verification(installation: str = "main", guest: int | None = None) -> tuple[GuestProof, ...]:
    """Restore the newest backup of each guest under a free id, see Mail Archiver answer inside it, and remove it again.

    The restored guest's network links are down before it is started. Inside, the application is started only when its mail accounts
    were disabled and their secrets blanked. Neither the guest itself nor the installation is touched, so no lock is taken. A guest that
    fails keeps no other from its test; then the run ends as failed (GuestsNotProven, which carries the verdicts).

    Args:
        installation: Which installation, by its id in the settings file.
        guest: Only this guest of the settings, by its id; left out: each of them.
    """
    config = config_of(installation)
    with remembered(config, "proxmox verification") as run:
        proofs = tuple(_prove(config, vmid) for vmid in guests_to_prove(config, guest))
        for proof in proofs:
            record_proof(config, proof)
        run.fail("; ".join(f"guest {each.guest}: {each.problem}" for each in proofs if each.problem))
    report_proofs(config, proofs)
    return proofs


def _prove(config: InstallationConfig, vmid: int) -> GuestProof:
    """Try one guest's newest backup; a failure is the verdict."""
    begun, now, found = time.monotonic(), datetime.now(UTC), Findings(vmid)
    try:
        found.chosen = choose_copy(config, vmid)
        with restored_guest(config, found.chosen) as restored:
            found.restored = restored
            start_guest(config, restored)
            found.booted = True
            stacks = hold_applications(config, restored)
            held = neutralise_guest(config, restored, stacks)
            found.accounts = held.accounts
            found.content = count_content(config, restored, held)
            compare_content(config, found, now)
            probe_applications(config, restored, held)
            found.application = True
    except BackupError as error:
        return found.proof(now, time.monotonic() - begun, error)
    return found.proof(now, time.monotonic() - begun)
