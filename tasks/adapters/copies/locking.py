"""Make the lock of a copy that is at a target longer, and read back what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tasks.adapters.copies.rclone import Remote, describe, lock_longer
from tasks.core.copies.locks import EQUAL
from tasks.core.errors import Refused


def extend_lock(remote: Remote, names: Iterable[str], until: datetime) -> datetime:
    """Have a target keep these files until a moment at least; give the earliest end of their locks, as it answers itself.

    What is locked for so long already is left alone. Raise Refused where it took the request, and locked nothing longer.
    """
    ends = []
    for name in names:
        end = describe(remote, name).locked_until
        if end is None or end < until - EQUAL:
            lock_longer(remote, name, until)
            end = describe(remote, name).locked_until
        if end is None or end < until - EQUAL:
            held = f"is locked until {end:%Y-%m-%d %H:%M}" if end is not None else "has no lock"
            raise Refused(
                f"target {remote.target}: {name} {held}, and was to be locked until {until:%Y-%m-%d %H:%M} (UTC)",
                hint="has the bucket object lock, and may this key copy objects and set their retention?",
            )
        ends.append(end)
    return min(ends)
