"""A directory in memory: what lies there is on no disk, and gone after a reboot."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MEMORY_VARIABLE = "MAILARCHIVER_BACKUP_RUN"
DEFAULT_PLACE = Path("/run/mailarchiver-backup")
MEMORY_KINDS = ("tmpfs", "ramfs")


def memory_place() -> Path:
    """Name the directory; MAILARCHIVER_BACKUP_RUN names another than /run/mailarchiver-backup."""
    return Path(os.environ.get(MEMORY_VARIABLE) or DEFAULT_PLACE)


def memory_obstacle() -> str:
    """Say why secrets cannot be kept in memory-backed storage here; "" where they can."""
    place = memory_place()
    if os.geteuid() != 0:
        return "this is not root"
    if not place.is_absolute() or ".." in place.parts:
        return f"${MEMORY_VARIABLE} is no absolute path"
    nearest = next(each for each in (place, *place.parents) if os.path.lexists(each))
    kind = file_system_kind(nearest.resolve())
    if kind not in MEMORY_KINDS:
        return f"{nearest} is on {kind or 'an unknown file system'}, not in memory (tmpfs); ${MEMORY_VARIABLE} may name another place"
    if place.exists():
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o077:
            return f"{place} is not root's alone"
    return ""


def made_memory_place() -> Path:
    """Make the directory (0700) where it is missing; to be called where there is no obstacle."""
    place = memory_place()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def file_system_kind(place: Path) -> str:
    """Name the kind of file system that a path lies on; "" where that is not known."""
    kind, longest = "", -1
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            point = Path(before.split()[4].encode().decode("unicode_escape"))
            if place.is_relative_to(point) and len(point.parts) >= longest:  # a later mount covers an earlier one
                kind, longest = after.split()[0], len(point.parts)
    return kind
