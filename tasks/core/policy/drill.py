"""Is the recovery key still proven? A key that nobody has tried for a year may be lost, and nobody knows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.core.units import duration_text


@dataclass(frozen=True, slots=True)
class DrillState:
    """Since when archives are encrypted to these recipients (by their digest), and when a key of theirs last opened one in a verification."""

    recipients: str
    since: datetime
    drilled_at: datetime | None = None
    backup: str = ""


def recipients_digest(recipients: Sequence[str]) -> str:
    """Give what tells one set of recipients from another, in whatever order they stand."""
    return hashlib.sha256("\n".join(sorted(set(recipients))).encode()).hexdigest()


def drill_problem(state: DrillState | None, *, within_days: int, now: datetime) -> str:
    """Say that a drill is overdue, measured from the last one, or from when the recipients were first used; "" where it is not.

    >>> from datetime import UTC
    >>> drill_problem(None, within_days=365, now=datetime(2026, 1, 1, tzinfo=UTC))
    ''
    """
    if state is None or within_days == 0:
        return ""
    measured = state.drilled_at or state.since
    if now - measured <= timedelta(days=within_days):
        return ""
    age = duration_text((now - measured).total_seconds())
    what = f"was last drilled {age} ago" if state.drilled_at else f"was never drilled in {age}"
    return f"the recovery key {what}; at most {within_days} days were asked for: `verify --with-recovery-key --identity FILE`"
