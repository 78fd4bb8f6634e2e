"""Proxmox VE: a guest's backup restored under a free id, its configuration, its removal; each request as the published API has it.

https://pve.proxmox.com/pve-docs/api-viewer/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.adapters.proxmox.session import Session
from tasks.core.errors import BackupError, NameTaken, Refused
from tasks.core.proxmox import replies
from tasks.core.proxmox.judge_backup import outcome_of
from tasks.core.proxmox.replies import Guest, GuestCopy, Kind
from tasks.core.proxmox.trial import Config, config_in, config_now, free_id, marked

_RESTORE: Mapping[Kind, str] = {"lxc": "vzrestore", "qemu": "qmrestore"}
_TASKS_LISTED = 50
# Its clock and ours may differ.
_CLOCK_SECONDS = 300


def config_of_backup(session: Session, node: str, copy: GuestCopy) -> dict[str, str]:
    """Read the configuration that a backup carries."""
    return config_in(session.get(f"nodes/{node}/vzdump/extractconfig", volume=copy.name))


def free_ids(session: Session, ids: tuple[int, int] | None) -> Iterator[int]:
    """Give ids that no guest of the cluster has at this moment, no matter who may see it; a restore reserves one."""
    if ids is None:
        first = free_id(session.get("cluster/nextid"))
        if first is None:
            raise replies.misfit("the next free id", first)
        ids = (first, first + 999)
    for vmid in range(ids[0], ids[1] + 1):
        if is_free(session, vmid):
            yield vmid


def is_free(session: Session, vmid: int) -> bool:
    """Tell whether no guest has an id. Proxmox refuses to name one that is taken, with the status of a wrong parameter."""
    try:
        return free_id(session.get("cluster/nextid", vmid=vmid)) == vmid
    except BackupError as error:
        if "exists" in error.message or "in use" in error.message:
            return False
        raise


def start_restore(
    session: Session, guest: Guest, vmid: int, copy: GuestCopy, storage: str, *, pool: str | None, mark: str
) -> str:
    """Begin to restore a guest's backup under an id; give the id of its task.

    It is not started, has addresses of its own (`unique`), is not started with its node, and bears our mark. What is there is never
    overwritten: raise NameTaken where the id was taken meanwhile.
    """
    given: dict[str, Any] = {
        "vmid": vmid, "storage": storage, "unique": 1, "start": 0, "onboot": 0, "protection": 0, "description": marked(mark),
        "force": 0,
    }  # fmt: skip
    if pool is not None:
        given["pool"] = pool
    given |= {"archive": copy.name} if guest.kind == "qemu" else {"ostemplate": copy.name, "restore": 1}
    try:
        return replies.upid(session.post(f"nodes/{guest.node}/{guest.kind}", **given))
    except BackupError as error:
        if says_taken(error.message):
            raise NameTaken(f"the id {vmid} was taken meanwhile", hint="another id will do") from error
        raise


def says_taken(said: str) -> bool:
    """Tell whether Proxmox says that an id has a guest already."""
    return "already exists" in said or "config file already exists" in said


def config_now_of(session: Session, guest: Guest) -> dict[str, str]:
    """Read a guest's configuration as it is."""
    return config_now(session.get(f"nodes/{guest.node}/{guest.kind}/{guest.vmid}/config"))


def change_config(session: Session, guest: Guest, changes: Config) -> None:
    """Change a guest's configuration."""
    session.put(f"nodes/{guest.node}/{guest.kind}/{guest.vmid}/config", **changes)


def destroy(session: Session, guest: Guest) -> str:
    """Begin to remove a guest, with the disks that its configuration names; give the id of the task.

    Disks that only bear its number, and jobs, are left alone: they are others'.
    """
    return replies.upid(
        session.delete(f"nodes/{guest.node}/{guest.kind}/{guest.vmid}", purge=0, destroy_unreferenced_disks=0)
    )


def restores_of(session: Session, guest: Guest, since: int) -> list[tuple[str, bool, bool]]:
    """List our own restores under a guest's id since a moment, newest first: the task's id, whether it runs, and whether it ended well."""
    found: dict[str, tuple[str, bool, bool]] = {}
    for source in ("active", "archive"):
        told = session.get(
            f"nodes/{guest.node}/tasks", source=source, vmid=guest.vmid, typefilter=_RESTORE[guest.kind], limit=_TASKS_LISTED,
            since=max(0, since - _CLOCK_SECONDS),
        )  # fmt: skip
        for each in replies.tasks(told):
            if each.user == session.caller and each.guest == str(guest.vmid):
                found.setdefault(
                    each.upid, (replies.upid(each.upid), each.running, outcome_of(each.exit_status) != "failed")
                )
    return list(found.values())


def require_agent(config: Config, guest: Guest) -> None:
    """Raise Refused where a machine's backup has no guest agent: nothing could be asked inside."""
    wanted = config.get("agent", "0").split(",")
    if not any(each in ("1", "enabled=1") for each in wanted):
        raise Refused(
            f"the backup of {guest} has no QEMU guest agent (`agent` is {config.get('agent', 'not set')}): nothing can be asked inside it",
            hint="install qemu-guest-agent in it, set Options > QEMU Guest Agent, and back it up again",
        )
