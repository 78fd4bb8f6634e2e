"""A Proxmox Backup Server's answers, written down from its published API documentation; nobody here has asked a real one.

Sources, read in November 2026:

- `snapshots`: https://pbs.proxmox.com/docs/api-viewer/#/admin/datastore/{store}/snapshots, GET "List backup snapshots": parameters
  backup-id, backup-type, ns, store; returns backup-id, backup-time, backup-type, comment, files, fingerprint, owner, protected, size,
  verification {state, upid}. The same as an OpenAPI document: https://github.com/basher83/Proxmox-OpenAPI (proxmox-backup-server/pbs-api.json),
  and as generated code: https://docs.rs/clientapi-pbs (AdminDatastoreGetSnapshotsResponseDataInner).
- `tasks`: https://pbs.proxmox.com/docs/api-viewer/#/nodes/{node}/tasks, GET "List tasks": parameters errors, limit, running, since, start,
  statusfilter, store, typefilter, until, userfilter; returns endtime, node, pid, pstart, starttime, status, upid, user, worker_id, worker_type.
- The token's header: https://pbs.proxmox.com/docs/user-management.html#api-tokens, `PBSAPIToken=USER@REALM!NAME:SECRET`.
- Missing rights and unknown stores: 403 and 400 with a plain reason, as the same documents' error answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.proxmox.front import Answer, Front, serving

SNAPSHOT_PARAMETERS = {"backup-id", "backup-type", "ns"}
TASK_PARAMETERS = {"errors", "limit", "running", "since", "start", "statusfilter", "store", "typefilter", "until", "userfilter"}  # fmt: skip


class FakeBackupServer(Front):
    """One datastore, `store1`."""

    scheme = "PBSAPIToken="
    separator = ":"

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.snapshots: list[dict[str, Any]] = []
        self.tasks: list[dict[str, Any]] = []

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "datastore": "store1"}

    def add_snapshot(self, at: datetime, guest: int = 101, *, state: str = "", namespace: str = "") -> None:
        """Put a snapshot of a container there."""
        upid = "UPID:pbs:000002D8:0000054A:00000001:65A1B2C3:verificationjob:store1\\x3av1:root@pam:"
        self.snapshots.append(
            {
                "backup-type": "ct", "backup-id": str(guest), "backup-time": int(at.timestamp()), "size": 3 * 10**9, "protected": False,
                "owner": "backup@pbs!pve", "comment": "mail", "ns": namespace,
                "files": [{"filename": "root.pxar.didx", "crypt-mode": "none", "size": 3 * 10**9}, {"filename": "index.json.blob"}],
                **({"verification": {"state": state, "upid": upid}} if state else {}),
            }
        )  # fmt: skip

    def add_task(self, at: datetime, worker_type: str, worker_id: str, status: str) -> None:
        """Put a task there that has ended."""
        started = int(at.timestamp())
        self.tasks.append(
            {
                "upid": f"UPID:pbs:000002D8:0000054A:00000001:{started:08X}:{worker_type}:x:root@pam:", "node": "pbs", "pid": 728, "pstart": 1354,
                "starttime": started, "endtime": started + 60, "worker_type": worker_type, "worker_id": worker_id, "user": "root@pam",
                "status": status,
            }
        )  # fmt: skip

    def answer(self, method: str, path: str, values: dict[str, str]) -> Any:
        if method == "GET" and (found := re.fullmatch(r"/admin/datastore/([^/]+)/snapshots", path)):
            self._refuse_unknown(values, SNAPSHOT_PARAMETERS)
            if found[1] != "store1":
                raise Answer(400, f"datastore '{found[1]}' does not exist")
            return [
                {name: value for name, value in each.items() if name != "ns"}
                for each in self.snapshots
                if values.get("backup-id") in (None, each["backup-id"]) and values.get("ns", "") == each["ns"]
            ]
        if method == "GET" and path == "/nodes/localhost/tasks":
            self._refuse_unknown(values, TASK_PARAMETERS)
            return [each for each in self.tasks if each["starttime"] >= int(values.get("since", 0))]
        raise Answer(404, f"Path '{path}' not found")

    def _refuse_unknown(self, values: dict[str, str], known: set[str]) -> None:
        for name in values:
            if name not in known:
                raise Answer(
                    400, f"parameter verification failed - '{name}': schema does not allow additional properties"
                )


@contextmanager
def fake_backup_server(place: Path) -> Iterator[FakeBackupServer]:
    """Run a backup server for the block."""
    server = FakeBackupServer(place)
    with serving(server):
        yield server
