"""How the backups of the host stand: their newest, and whether that is too old."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tasks.core.archive.manifest import Record, is_older_than
from tasks.core.archive.system_contents import HostContents
from tasks.core.policy.history import Entry
from tasks.core.units import duration_text, size_text


def host_problems(records: Sequence[Record], within_hours: float, failed: Entry | None, *, now: datetime) -> list[str]:
    """Tell what is wrong: none yet, the newest too old, the last run failed; `records` are newest first."""
    problems = []
    if not records:
        problems.append("there is no backup of the host yet: `mailarchiver-backup backup host` takes one")
    elif is_older_than(records[0].manifest.created_at, now, hours=within_hours):
        age = duration_text((now - records[0].manifest.created_at).total_seconds())
        problems.append(f"the newest backup of the host is {age} old, more than {within_hours:g} hours")
    if failed is not None:
        problems.append(f"the last {failed.run} {failed.outcome} ({failed.at:%Y-%m-%d %H:%M} UTC): {failed.message}")
    return problems


def host_note(record: Record, *, now: datetime) -> str:
    """Tell of the newest backup of the host in a sentence."""
    about = record.manifest
    age = duration_text((now - about.created_at).total_seconds())
    held = contents_text(about.host) if about.host else ""
    return f"the host: {about.name}, {age} old, {size_text(record.bytes)}: {held}"


def contents_text(contents: HostContents) -> str:
    """Say what a backup of a host holds.

    >>> contents_text(HostContents(hostname="h", paths=["/etc/fstab"]))
    'no volumes, no projects, no images, 1 path'
    """
    saved = any(each.member for each in contents.images)
    volumes = ", ".join(each.name + ("" if each.consistent else " (while in use)") for each in contents.volumes)
    parts = [
        f"volumes {volumes}" if volumes else "no volumes",
        f"projects {', '.join(each.name for each in contents.projects)}" if contents.projects else "no projects",
        f"{_counted(len(contents.images), 'image')}{'' if saved else ' by digest'}" if contents.images else "no images",
        _counted(len(contents.paths), "path"),
    ]
    return ", ".join(parts)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
