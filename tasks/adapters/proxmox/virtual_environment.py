"""Proxmox VE: guests, storages, backups and tasks, each request as its published API has it.

https://pve.proxmox.com/pve-docs/api-viewer/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.adapters.proxmox.session import Session
from tasks.core.errors import Refused
from tasks.core.policy.proxmox_settings import Compression, Mode
from tasks.core.proxmox import replies
from tasks.core.proxmox.judge_backup import Action
from tasks.core.proxmox.replies import Guest, GuestCopy, GuestNow, Job, PruneMark, StorageNow, TaskNow

LINES_AT_ONCE = 500
_COMPRESS: dict[Compression, str] = {"zstd": "zstd", "gzip": "gzip", "lzo": "lzo", "none": "0"}


def find_guests(session: Session, vmids: Sequence[int]) -> list[Guest]:
    """Find guests, each on the node where it is now; raise Refused, with their ids, where the token sees one not."""
    known = {each.vmid: each for each in replies.guests(session.get("cluster/resources", type="vm"))}
    if missing := [str(vmid) for vmid in vmids if vmid not in known]:
        raise Refused(
            f"{session.where} knows no guest {', '.join(missing)}, or does not show it to this token",
            hint="are the ids in `proxmox.guests` right? the token needs VM.Audit on each guest",
        )
    return [known[vmid] for vmid in vmids]


def guest_now(session: Session, guest: Guest) -> GuestNow:
    """Look at a guest as it is now."""
    return replies.guest_now(session.get(f"{_guest(guest)}/status/current"), guest.kind)


def act_on_guest(session: Session, guest: Guest, action: Action) -> str:
    """Begin an action on a guest; give the id of its task."""
    return replies.upid(session.post(f"{_guest(guest)}/status/{action}"))


def storage_now(session: Session, node: str, storage: str) -> StorageNow:
    """Look at a storage as a node sees it."""
    return replies.storage_now(session.get(f"nodes/{node}/storage/{storage}/status"))


def backups_of(session: Session, guest: Guest, storage: str) -> list[GuestCopy]:
    """List a guest's backups on a storage, newest first."""
    found = session.get(f"nodes/{guest.node}/storage/{storage}/content", content="backup", vmid=guest.vmid)
    return replies.volumes(found, guest.vmid)


def start_backup(
    session: Session, guest: Guest, storage: str, *, mode: Mode, compression: Compression, notes: str, protected: bool
) -> str:
    """Begin a backup of one guest; give the id of its task. It removes no former backup: that is decided when it has succeeded."""
    given: dict[str, Any] = {
        "vmid": guest.vmid, "storage": storage, "mode": mode, "compress": _COMPRESS[compression], "remove": 0, "lockwait": 5,
    }  # fmt: skip
    if notes:
        given["notes_template"] = notes
    if protected:
        given["protected"] = 1
    answer = session.post(f"nodes/{guest.node}/vzdump", **given)
    if answer == "OK":  # what it says where there is nothing to do
        raise Refused(
            f"{guest} is no longer on node {guest.node}: nothing was started",
            hint="is it being migrated? run this again when it has arrived",
        )
    return replies.upid(answer)


def our_running_backups(session: Session, guest: Guest, node: str) -> list[str]:
    """List the ids of backups of a guest that run now and were begun with our token."""
    found = session.get(f"nodes/{node}/tasks", source="active", typefilter="vzdump", vmid=guest.vmid)
    ours = [each for each in replies.tasks(found) if each.running and each.guest == str(guest.vmid)]
    return [replies.upid(each.upid) for each in ours if each.user == session.caller]


def task_now(session: Session, node: str, upid: str) -> TaskNow:
    """Look at a task."""
    return replies.task_now(session.get(f"nodes/{node}/tasks/{upid}/status"))


def task_log(session: Session, node: str, upid: str, after: int) -> list[tuple[int, str]]:
    """Give the lines of a task's log after so many, at most 500."""
    return replies.log_lines(session.get(f"nodes/{node}/tasks/{upid}/log", start=after, limit=LINES_AT_ONCE))


def stop_task(session: Session, node: str, upid: str) -> None:
    """Ask a task to end."""
    session.delete(f"nodes/{node}/tasks/{upid}")


def prune_preview(session: Session, guest: Guest, storage: str, rules: str) -> list[PruneMark]:
    """Ask what retention would do to a guest's backups; no rules: those of the storage."""
    found = session.get(f"nodes/{guest.node}/storage/{storage}/prunebackups", **_pruning(guest, rules))
    return replies.prune_marks(found)


def prune(session: Session, guest: Guest, storage: str, rules: str) -> str:
    """Apply retention to a guest's backups; give the id of the task."""
    return replies.upid(session.delete(f"nodes/{guest.node}/storage/{storage}/prunebackups", **_pruning(guest, rules)))


def backup_storages(session: Session, node: str, *, with_servers: bool) -> list[str]:
    """Name the storages of a node that take backups."""
    return replies.backup_storages(
        session.get(f"nodes/{node}/storage", content="backup", enabled=1), with_servers=with_servers
    )


def backup_tasks(session: Session, node: str, since: int) -> list[TaskNow]:
    """List a node's backup tasks since a moment, newest first: those that the token may see."""
    return replies.tasks(
        session.get(f"nodes/{node}/tasks", source="all", typefilter="vzdump", since=since, limit=LINES_AT_ONCE)
    )


def backup_jobs(session: Session) -> list[Job]:
    """List the backup jobs of the cluster."""
    return replies.jobs(session.get("cluster/backup"))


def not_backed_up(session: Session) -> list[int]:
    """List the guests that no backup job names."""
    return replies.ids(session.get("cluster/backup-info/not-backed-up"))


def _pruning(guest: Guest, rules: str) -> dict[str, Any]:
    return {"vmid": guest.vmid, "type": guest.kind, **({"prune_backups": rules} if rules else {})}


def _guest(guest: Guest) -> str:
    return f"nodes/{guest.node}/{guest.kind}/{guest.vmid}"
