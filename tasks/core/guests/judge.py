"""How the backups of this host's guests stand: the newest of each, and whether that is too old."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tasks.core.archive.manifest import Record, is_older_than
from tasks.core.units import duration_text, size_text


def guest_problems(subject: str, records: Sequence[Record], within_hours: float, *, now: datetime) -> list[str]:
    """Tell what is wrong with the backups of one guest ("lxc mail"): none yet, or the newest too old; `records` are newest first."""
    newest = next((each.manifest for each in records if each.manifest.subject == subject), None)
    if newest is None:
        return [f"there is no backup of {subject} yet: `mailarchiver-backup backup {subject}` takes one"]
    if is_older_than(newest.created_at, now, hours=within_hours):
        age = duration_text((now - newest.created_at).total_seconds())
        return [f"the newest backup of {subject} is {age} old, more than {within_hours:g} hours"]
    return []


def guest_notes(records: Sequence[Record], *, now: datetime) -> list[str]:
    """Tell of the newest backup of each guest in a sentence; `records` are newest first."""
    newest: dict[str, Record] = {}
    for each in records:
        if each.manifest.guest is not None:
            newest.setdefault(each.manifest.subject, each)
    return [
        f"{subject} as a whole: {each.manifest.name}, {duration_text((now - each.manifest.created_at).total_seconds())} old, {size_text(each.bytes)}"
        for subject, each in sorted(newest.items())
    ]
