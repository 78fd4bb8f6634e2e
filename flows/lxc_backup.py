"""The system around the application, where no Proxmox is: the container of LXC that carries it, backed up as a whole."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

from tasks.backup.archive import new_archive, seal_system_backup
from tasks.core.archive.manifest import Record
from tasks.guests.back_up_container import chosen_containers, copy_container, look_at_container
from tasks.guests.runs import GuestRun, run_of
from tasks.oversight.system_backups import report_system_backups
from tasks.prefect_objects import flow
from tasks.run.config import InstallationConfig
from tasks.run.context import locked_config


@flow(name="lxc-backup", flow_run_name="lxc backup of {installation}")
def lxc_backup(installation: str = "main", name: str = "") -> tuple[GuestRun, ...]:
    """Stop each container of the settings, copy its files and configuration, and see it in its former state again.

    It is down for the copy alone, and runs before the archive is read back. One that fails keeps no other from its backup;
    then the run ends as failed (GuestsFailed, which carries what was done).

    Args:
        installation: Which installation, by its id in the settings file.
        name: One container of the settings; empty takes all of them.
    """
    with locked_config(installation, "lxc backup") as config:
        done = tuple(
            run_of(f"lxc {each}", partial(_backup_of, config, each)) for each in chosen_containers(config, name)
        )
        report_system_backups(config, done)
    return done


def _backup_of(config: InstallationConfig, name: str) -> Record:
    begun = time.monotonic()
    fit = look_at_container(config, name)
    # A disk or a file of zeros shrinks further by zstd than a reader that fears bombs believes; gzip cannot.
    with new_archive(config, "guide", datetime.now(UTC), of_system=True) as archive:
        copied = copy_container(config, archive, fit)
        return seal_system_backup(
            config, archive, method="lxc", at=copied.at, guest=copied.facts, begun=begun, downtime_seconds=copied.downtime_seconds,
        )  # fmt: skip
