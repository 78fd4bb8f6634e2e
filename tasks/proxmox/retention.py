"""Retention of guests' backups: Proxmox's own `prune-backups`, applied after a success, and told with reasons."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from tasks.adapters.proxmox import virtual_environment as pve
from tasks.core.errors import BackupError
from tasks.core.proxmox.judge_backup import outcome_of
from tasks.core.proxmox.retention import Decision, decisions, may_prune, prune_text
from tasks.proxmox.backup_guest import GuestBackup, connected, proxmox_of
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)

PRUNE_SECONDS = 900.0
_POLL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention decided for a guest; `paused` says why nothing was removed although it could have been."""

    decisions: tuple[Decision, ...]
    paused: str = ""


@step(name="prune guest's backups", run_name="prune backups of guest {made.guest.vmid}")
def prune_guest(config: InstallationConfig, made: GuestBackup) -> Pruned:
    """Apply retention to the backups of a guest whose new backup has succeeded without a warning.

    The rules are those of the settings, else the storage's own. What they would do is asked first, and nothing is removed where
    that does not keep the new backup.
    """
    wanted, guest = proxmox_of(config), made.guest
    rules = prune_text(wanted.retention) if wanted.retention else ""
    with connected(config) as api:
        found = tuple(decisions(pve.prune_preview(api, guest, wanted.storage, rules), wanted.retention))
        if made.warnings:
            return Pruned(found, "the new backup ended with warnings")
        if reason := may_prune(found, made.copy.name):
            return Pruned(found, reason)
        if all(each.keep for each in found):
            return Pruned(found)
        upid = pve.prune(api, guest, wanted.storage, rules)
        deadline = time.monotonic() + PRUNE_SECONDS
        while (task := pve.task_now(api, guest.node, upid)).running:
            if time.monotonic() > deadline:
                raise BackupError(f"pruning the backups of {guest} does not end", hint="see its task in Proxmox")
            time.sleep(_POLL_SECONDS)
        if outcome_of(task.exit_status) == "failed":
            raise BackupError(
                f"pruning the backups of {guest} failed: {task.exit_status}", hint="see its task in Proxmox"
            )
    return Pruned(found)
