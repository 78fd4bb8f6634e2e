"""Answers of Proxmox as values of ours. Anyone who can write there is not trusted: a name is a text for people, cut and made plain,
and goes into no path unless it has the form that Proxmox itself gives such names.

The shapes are those of the published API (https://pve.proxmox.com/pve-docs/api-viewer/, https://pbs.proxmox.com/docs/api-viewer/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tasks.core.errors import BackupError
from tasks.core.plain_text import plain_line
from tasks.core.policy.guest_names import LARGEST_GUEST, NODE, STORAGE, UPID

TEXT_LIMIT = 300
ANSWERS_LIMIT = 100_000
# What lies beyond is told as the nearest that our records can hold: 1990 is too old for anybody, and 2499 is a wrong clock's.
_FIRST_MOMENT, _LAST_MOMENT = 631_238_400, 16_725_139_200

Kind = Literal["lxc", "qemu"]
State = Literal["running", "paused", "prelaunch", "stopped"]


@dataclass(frozen=True, slots=True)
class Guest:
    """A container or virtual machine, and the node that it is on."""

    vmid: int
    kind: Kind
    node: str
    name: str

    def __str__(self) -> str:
        """Name it as people do."""
        what = "container" if self.kind == "lxc" else "virtual machine"
        return f"{what} {self.vmid}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True, slots=True)
class GuestNow:
    """A guest at a moment: its state, who has locked it ("": nobody), and its size."""

    state: State
    lock: str
    bytes: int


@dataclass(frozen=True, slots=True)
class StorageNow:
    """A storage as a node sees it."""

    kind: str
    content: tuple[str, ...]
    usable: bool
    free_bytes: int


@dataclass(frozen=True, slots=True)
class GuestCopy:
    """A backup of a guest that is there: a volume of a storage, or a snapshot of a backup server."""

    vmid: int
    name: str
    at: datetime
    bytes: int
    protected: bool = False
    verification: str = ""


@dataclass(frozen=True, slots=True)
class TaskNow:
    """A task: whether it runs, and what it ended with."""

    upid: str
    running: bool
    exit_status: str
    started: datetime | None = None
    guest: str = ""
    user: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A backup job of Proxmox VE; `guests` empty and `all_guests`: every one but the `excluded`."""

    id: str
    mode: str
    enabled: bool
    all_guests: bool
    guests: tuple[int, ...]
    excluded: tuple[int, ...]

    def covers(self, vmid: int) -> bool:
        """Tell whether it backs a guest up; what a pool holds is not asked."""
        return vmid in self.guests or (self.all_guests and vmid not in self.excluded)


@dataclass(frozen=True, slots=True)
class PruneMark:
    """What Proxmox says that its `prune-backups` would do to a backup: keep, remove, protected or renamed."""

    name: str
    at: datetime
    mark: str


def misfit(what: str, value: object) -> BackupError:
    """Make the error about an answer that is not what the API documents."""
    return BackupError(
        f"Proxmox's answer about {what} is not what its API documents: {plain_line(repr(value))[:120]}",
        hint="is that really a Proxmox, and of which version?",
    )


def text(value: object, limit: int = TEXT_LIMIT) -> str:
    """Give a text of somebody else's as one that can be shown, in one line."""
    return plain_line(value if isinstance(value, str) else "" if value is None else str(value))[:limit]


def mappings(value: object, what: str) -> list[Mapping[str, Any]]:
    """Give a list of objects."""
    if not isinstance(value, list) or len(value) > ANSWERS_LIMIT or not all(isinstance(each, dict) for each in value):
        raise misfit(what, value)
    return value


def mapping(value: object, what: str) -> Mapping[str, Any]:
    """Give an object."""
    if not isinstance(value, dict):
        raise misfit(what, value)
    return value


def number(value: object, what: str, *, most: int = 1 << 62) -> int:
    """Give a whole number, which Proxmox writes as such, as a text, or as a boolean; what is missing is 0."""
    if value is None:
        return 0
    if isinstance(value, str) and re.fullmatch(r"\d{1,19}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or not 0 <= value <= most:
        raise misfit(what, value)
    return int(value)


def moment(value: object, what: str) -> datetime:
    """Give a moment that is told in seconds since 1970."""
    return datetime.fromtimestamp(min(max(number(value, what), _FIRST_MOMENT), _LAST_MOMENT), UTC)


def upid(value: object) -> str:
    """Give a task's id; it goes into paths, and so has Proxmox's own form or is refused."""
    if not isinstance(value, str) or not re.fullmatch(UPID, value):
        raise misfit("a task's id", value)
    return value


def guests(value: object) -> list[Guest]:
    """Read `/cluster/resources?type=vm`; templates and what is no guest are passed over."""
    found = []
    for each in mappings(value, "the guests"):
        if each.get("type") not in ("lxc", "qemu") or each.get("template") in (1, "1", True):
            continue
        node = each.get("node")
        if not isinstance(node, str) or not re.fullmatch(NODE, node):
            raise misfit("a guest's node", node)
        vmid = number(each.get("vmid"), "a guest's id", most=LARGEST_GUEST)
        found.append(Guest(vmid, each["type"], node, text(each.get("name"), 80)))
    return found


def guest_now(value: object, kind: Kind) -> GuestNow:
    """Read `status/current`. A container's size is what it uses; of a machine's disks only the whole size is known."""
    found = mapping(value, "a guest's state")
    status, machine = found.get("status"), found.get("qmpstatus")
    if status not in ("running", "stopped"):
        raise misfit("a guest's state", status)
    state: State = status
    if kind == "qemu" and status == "running":
        state = "paused" if machine in ("paused", "suspended") else "prelaunch" if machine == "prelaunch" else "running"
    used, whole = number(found.get("disk"), "a disk"), number(found.get("maxdisk"), "a disk")
    return GuestNow(state, text(found.get("lock"), 40), used if kind == "lxc" and used else whole)


def storage_now(value: object) -> StorageNow:
    """Read `/nodes/NODE/storage/STORAGE/status`."""
    found = mapping(value, "a storage")
    content = tuple(each for each in text(found.get("content")).replace(" ", "").split(",") if each)
    usable = found.get("active") in (1, "1", True) and found.get("enabled", 1) in (1, "1", True)
    return StorageNow(text(found.get("type"), 40), content, usable, number(found.get("avail"), "free space"))


def volumes(value: object, vmid: int) -> list[GuestCopy]:
    """Read the backups of one guest on a storage, newest first."""
    found = [
        GuestCopy(
            vmid, text(each.get("volid")), moment(each.get("ctime"), "a backup's time"), number(each.get("size"), "a backup's size"),
            each.get("protected") in (1, "1", True), _verification(each),
        )
        for each in mappings(value, "backups")
        if each.get("vmid") in (vmid, str(vmid))
    ]  # fmt: skip
    return sorted(found, key=lambda each: each.at, reverse=True)


def snapshots(value: object, vmids: Sequence[int]) -> list[GuestCopy]:
    """Read the snapshots of guests in a datastore of a backup server, newest first."""
    found = []
    for each in mappings(value, "snapshots"):
        kind, name = each.get("backup-type"), each.get("backup-id")
        if kind not in ("ct", "vm") or name not in [str(vmid) for vmid in vmids]:
            continue
        at = moment(each.get("backup-time"), "a snapshot's time")
        found.append(
            GuestCopy(
                int(str(name)), f"{kind}/{name}/{at:%Y-%m-%dT%H:%M:%SZ}", at, number(each.get("size"), "a snapshot's size"),
                each.get("protected") is True, _verification(each),
            )
        )  # fmt: skip
    return sorted(found, key=lambda each: each.at, reverse=True)


def task_now(value: object) -> TaskNow:
    """Read `/nodes/NODE/tasks/UPID/status`."""
    found = mapping(value, "a task")
    if found.get("status") not in ("running", "stopped"):
        raise misfit("a task's state", found.get("status"))
    return TaskNow(upid(found.get("upid")), found["status"] == "running", text(found.get("exitstatus")))


def tasks(value: object) -> list[TaskNow]:
    """Read a list of tasks, newest first: of Proxmox VE, or of a backup server, whose words are other ones."""
    found = [
        TaskNow(
            text(each.get("upid")),
            not each.get("endtime"),
            text(each.get("status")),
            moment(each.get("starttime"), "a task's time"),
            text(each.get("id") or each.get("worker_id"), 200),
            text(each.get("user")),
            text(each.get("type") or each.get("worker_type"), 40),
        )
        for each in mappings(value, "tasks")
    ]
    return sorted(found, key=lambda each: each.started or datetime.min.replace(tzinfo=UTC), reverse=True)


def backup_storages(value: object, *, with_servers: bool) -> list[str]:
    """Read `/nodes/NODE/storage?content=backup`: the names of those in use, a backup server's only where it is not looked at itself."""
    found = []
    for each in mappings(value, "storages"):
        name = each.get("storage")
        if not isinstance(name, str) or not re.fullmatch(STORAGE, name):
            raise misfit("a storage's name", name)
        if each.get("active") in (1, "1", True) and (with_servers or each.get("type") != "pbs"):
            found.append(name)
    return found


def jobs(value: object) -> list[Job]:
    """Read `/cluster/backup`."""
    return [
        Job(
            text(each.get("id"), 60), text(each.get("mode") or "snapshot", 20), each.get("enabled", 1) in (1, "1", True),
            each.get("all") in (1, "1", True), _ids(each.get("vmid")), _ids(each.get("exclude")),
        )
        for each in mappings(value, "backup jobs")
    ]  # fmt: skip


def ids(value: object) -> list[int]:
    """Read the ids of a list of guests."""
    return [number(each.get("vmid"), "a guest's id", most=LARGEST_GUEST) for each in mappings(value, "guests")]


def _ids(value: object) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\b\d{3,9}\b", text(value, 10_000)))


def log_lines(value: object) -> list[tuple[int, str]]:
    """Read a part of a task's log: each line with its number, counted from 1."""
    return [
        (number(each.get("n"), "a line's number"), text(each.get("t"), 1000))
        for each in mappings(value, "a task's log")
    ]


def prune_marks(value: object) -> list[PruneMark]:
    """Read what `prune-backups` would do, newest first."""
    found = [
        PruneMark(text(each.get("volid")), moment(each.get("ctime"), "a backup's time"), text(each.get("mark"), 20))
        for each in mappings(value, "what would be pruned")
    ]
    return sorted(found, key=lambda each: each.at, reverse=True)


def _verification(found: Mapping[str, Any]) -> str:
    told = found.get("verification")
    return text(told.get("state"), 20) if isinstance(told, dict) else ""
