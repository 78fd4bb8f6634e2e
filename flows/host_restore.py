"""The bad day of the machine around: volumes, images and files from a backup of the host, onto this host or another."""

from __future__ import annotations

from tasks.core.archive.origin import Words
from tasks.core.machine.only import Wanted
from tasks.core.machine.restore_plan import HostPlan, require_free
from tasks.machine.restore import (
    HostArchive,
    HostRestored,
    open_host_backup,
    plan_host_restore,
    restore_pieces,
)
from tasks.run.config import InstallationConfig
from tasks.run.context import locked_config


def show_host_plan(
    config: InstallationConfig,
    backup: str,
    only: tuple[str, ...],
    *,
    replace: bool,
    words: Words,
    trusted_keys: tuple[str, ...],
) -> tuple[HostArchive, Wanted, HostPlan]:
    """Read the archive wholly and tell what a restore would do, compared with what is here; touch nothing."""
    found = open_host_backup(config, backup, words, trusted_keys)
    wanted, plan = plan_host_restore(found, only, replace=replace)
    return found, wanted, plan


def host_restore(
    config: InstallationConfig, found: HostArchive, wanted: Wanted, plan: HostPlan, confirm: str
) -> HostRestored:
    """Restore the pieces that a plan names; it is made by hand alone, on a machine that may have no stack, no settings and no Prefect.

    Raise Refused, with nothing touched, where a piece would replace what is there and may not.
    """
    require_free(plan)
    with locked_config(config.id, "host restore", confirmed=confirm) as locked:
        return restore_pieces(locked, found, wanted, plan)
