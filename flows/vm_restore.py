"""A virtual machine of libvirt restored from its backup under a new name, beside whatever runs."""

from __future__ import annotations

from tasks.guests.restore_container import RestoredGuest
from tasks.guests.restore_machine import restore_machine
from tasks.oversight.system_backups import report_restored_guest
from tasks.prefect_objects import flow
from tasks.run.context import locked_config


@flow(name="vm-restore", flow_run_name="vm restore of {installation} as {name}")
def vm_restore(
    installation: str = "main",
    backup: str = "latest",
    name: str = "",
    start: bool = False,
    with_network: bool = False,
    foreign: bool = False,
) -> RestoredGuest:
    """Restore a virtual machine's backup under a name that is free, and see that its disks are whole.

    The links of its network cards are down, for the live application in it would log in to the same mailboxes, and it does not run unless
    that is said.

    Args:
        installation: Which installation, by its id in the settings file.
        backup: A backup's name; "latest" where there are backups of one machine only.
        name: The new machine's name.
        start: Start it.
        with_network: Leave the links of its network cards as they were, with new addresses.
        foreign: Take a backup that is not known as this installation's own.
    """
    with locked_config(installation, "vm restore") as config:
        done = restore_machine(config, backup, name, with_network=with_network, start=start, foreign=foreign)
    report_restored_guest(config, done)
    return done
