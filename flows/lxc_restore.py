"""A container of LXC restored from its backup under a new name, beside whatever runs."""

from __future__ import annotations

from tasks.guests.restore_container import RestoredGuest, restore_container
from tasks.oversight.system_backups import report_restored_guest
from tasks.prefect_objects import flow
from tasks.run.context import locked_config


@flow(name="lxc-restore", flow_run_name="lxc restore of {installation} as {name}")
def lxc_restore(
    installation: str = "main",
    backup: str = "latest",
    name: str = "",
    start: bool = False,
    with_network: bool = False,
    foreign: bool = False,
) -> RestoredGuest:
    """Restore a container's backup under a name that is free, and prove its files equal to those that were backed up.

    It has no network, for the live application in it would log in to the same mailboxes, and does not run unless that is said.

    Args:
        installation: Which installation, by its id in the settings file.
        backup: A backup's name; "latest" where there are backups of one container only.
        name: The new container's name.
        start: Start it.
        with_network: Leave it its network devices, with new addresses of their own.
        foreign: Take a backup that is not known as this installation's own.
    """
    with locked_config(installation, "lxc restore") as config:
        done = restore_container(config, backup, name, with_network=with_network, start=start, foreign=foreign)
    report_restored_guest(config, done)
    return done
