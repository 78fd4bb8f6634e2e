"""What is decided about a guest's backup: whether it may begin, how it ended, and the way back to the guest's former state."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.core.policy.proxmox_settings import Mode
from tasks.core.proxmox.replies import Guest, GuestCopy, GuestNow, State, StorageNow
from tasks.core.units import size_text

Outcome = Literal["succeeded", "warnings", "failed"]
Action = Literal["start", "suspend", "resume", "stop"]

# How much larger than the last one a backup may be, where a former one tells how far the guest's data shrink.
GROWTH = 1.5
# A backup server keeps only what is new; a first backup of a guest is as large as the guest.
NEW_PART = 0.1
_PERCENT = re.compile(r"^(?:INFO:\s+|progress )(\d{1,3})% \(")
_WARNINGS = re.compile(r"WARNINGS: (\d+)")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stands in a backup's way, and what may help."""

    what: str
    hint: str


def needed_bytes(guest: GuestNow, storage: StorageNow, former: Sequence[GuestCopy]) -> int:
    """Estimate what a backup takes on the storage: at most the guest's own size."""
    if not former:
        return guest.bytes
    if storage.kind == "pbs":
        return round(guest.bytes * NEW_PART)
    largest = max(each.bytes for each in former[:3])
    return min(guest.bytes, round(largest * GROWTH)) or round(largest * GROWTH)


def obstacle_of(
    guest: Guest, now: GuestNow, storage_name: str, storage: StorageNow, former: Sequence[GuestCopy]
) -> Obstacle | None:
    """Tell what stands in the way of a backup, before anything is started."""
    if now.lock:
        return Obstacle(
            f"{guest} is locked ({now.lock}): something else is at work on it, or left it so",
            f"wait for its end; where nothing works on it, `{'pct' if guest.kind == 'lxc' else 'qm'} unlock {guest.vmid}` on node {guest.node}",
        )
    if not storage.usable:
        return Obstacle(
            f"the storage {storage_name} is not usable on node {guest.node}: it is not active, or disabled",
            "see Datacenter > Storage: is it mounted, and enabled for this node?",
        )
    if "backup" not in storage.content:
        return Obstacle(
            f"the storage {storage_name} takes no backups: its content is {', '.join(storage.content) or 'nothing'}",
            "add the content `VZDump backup file` to it, or name another `proxmox.storage`",
        )
    needed = needed_bytes(now, storage, former)
    if storage.free_bytes < needed:
        return Obstacle(
            f"{size_text(storage.free_bytes)} are free on the storage {storage_name} where {size_text(needed)} are wanted for {guest}",
            "make room there, or name another `proxmox.storage`; nothing was started",
        )
    return None


def names_this_machine(guest: Guest, mode: Mode, host_name: str, runs_in: str) -> bool:
    """Tell whether the guest seems to be the machine that we run on, by its kind and its name: its stop would be our own end."""
    return guest.kind == runs_in and (
        mode != "snapshot" and bool(guest.name) and guest.name.split(".")[0].lower() == host_name.split(".")[0].lower()
    )


def outcome_of(exit_status: str) -> Outcome:
    """Tell success from warnings and from failure, by what a task ended with; anything unknown is a failure.

    >>> outcome_of("OK"), outcome_of("WARNINGS: 2"), outcome_of("job errors"), outcome_of("")
    ('succeeded', 'warnings', 'failed', 'failed')
    """
    if exit_status == "OK":
        return "succeeded"
    return "warnings" if _WARNINGS.fullmatch(exit_status) else "failed"


def percent_in(line: str) -> int | None:
    """Read how far a task is from a line of its log; a container's backup tells no percentage.

    >>> percent_in("INFO:  45% (14.5 GiB of 32.0 GiB) in 1m 2s, read: 240.0 MiB/s, write: 96.0 MiB/s")
    45
    """
    found = _PERCENT.match(line)
    return min(100, int(found[1])) if found else None


def troubles_in(lines: Sequence[str]) -> list[str]:
    """Pick the warnings and errors out of a task's log."""
    return [each for each in lines if each.startswith(("WARN", "ERROR", "TASK ERROR", "INFO: WARN"))]


def way_back(former: State, now: State) -> Action | None:
    """Give the one step back towards a guest's former state, None where it is there.

    Only what a backup does is undone. A machine that the backup itself had made ready to start (`prelaunch`) is stopped
    again; one that runs although it was stopped was started by somebody, and is left to them.

    >>> way_back("running", "stopped"), way_back("running", "paused"), way_back("stopped", "prelaunch"), way_back("stopped", "running")
    ('start', 'resume', 'stop', None)
    """
    if former in ("running", "paused") and now == "stopped":
        return "start"
    if former == "running" and now in ("paused", "prelaunch"):
        return "resume"
    if former == "paused" and now == "running":
        return "suspend"
    if former == "stopped" and now == "prelaunch":
        return "stop"
    return None
