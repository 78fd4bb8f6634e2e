"""Proxmox Backup Server: snapshots and tasks, each request as its published API has it. Nothing there is changed.

https://pbs.proxmox.com/docs/api-viewer/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.adapters.proxmox.session import Session
from tasks.core.policy.proxmox_settings import BackupServer
from tasks.core.proxmox import replies
from tasks.core.proxmox.replies import GuestCopy, TaskNow

TASKS_LOOKED_AT = 500
# A backup server calls its only node so, whatever its name is.
NODE = "localhost"


def snapshots_of(session: Session, server: BackupServer, vmids: Sequence[int]) -> list[GuestCopy]:
    """List the snapshots of guests in the datastore that the settings name, newest first."""
    found = [
        session.get(f"admin/datastore/{server.datastore}/snapshots", **_in_namespace(server), backup_id=str(vmid))
        for vmid in vmids
    ]
    return sorted(
        (each for some in found for each in replies.snapshots(some, vmids)), key=lambda each: each.at, reverse=True
    )


def tasks_of(session: Session, server: BackupServer, since: int) -> list[TaskNow]:
    """List the backups to the datastore and its verifications since a moment, newest first."""
    found = session.get(f"nodes/{NODE}/tasks", store=server.datastore, since=since, limit=TASKS_LOOKED_AT)
    return replies.tasks(found)


def _in_namespace(server: BackupServer) -> dict[str, Any]:
    return {"ns": server.namespace} if server.namespace else {}
