"""The system around the application: the guest that carries it, backed up as a whole by Proxmox (the guide's "Proxmox Backup")."""

from __future__ import annotations

from tasks.core.errors import BackupError
from tasks.oversight.guests import report_guests
from tasks.prefect_objects import flow
from tasks.proxmox.backup_guest import back_up_guest, look_at_guest, proxmox_of
from tasks.proxmox.report import GuestRun
from tasks.proxmox.retention import prune_guest
from tasks.run.config import InstallationConfig
from tasks.run.context import locked_config


@flow(name="proxmox-backup", flow_run_name="proxmox backup of {installation}")
def proxmox_backup(installation: str = "main") -> tuple[GuestRun, ...]:
    """Have Proxmox back up each guest of the settings, see it in its former state again, and apply retention.

    In mode `stop`, the guide's, the guest is down meanwhile. A guest that fails keeps no other from its backup; then the run
    ends as failed (GuestsFailed, which carries what was done).

    Args:
        installation: Which installation, by its id in the settings file.
    """
    with locked_config(installation, "proxmox backup") as config:
        done = tuple(_back_up(config, vmid) for vmid in proxmox_of(config).guests)
        report_guests(config, done)
    return done


def _back_up(config: InstallationConfig, vmid: int) -> GuestRun:
    """Do all that is to be done for one guest; a failure is returned, for the other guests' sake."""
    storage, made, pruned = proxmox_of(config).storage, None, None
    try:
        made = back_up_guest(config, look_at_guest(config, vmid))
        pruned = prune_guest(config, made)
    except BackupError as error:
        return GuestRun(vmid, storage, made, pruned, error)
    return GuestRun(vmid, storage, made, pruned, None)
