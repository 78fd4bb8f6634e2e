"""Clocks that were wrong: what is dated after now, and a jump that nothing in between explains."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

TOLERANCE = timedelta(hours=1)
JUMP = timedelta(days=45)
# For so long a jump is only told and nothing is removed: time enough to read the alarm. After it the clock is believed.
SETTLED = timedelta(days=7)
DISMISS_HINT = "when the clock is right: `mailarchiver-backup adopt BACKUP` takes it as made then, `adopt --dismiss BACKUP` leaves it out of account"


@dataclass(frozen=True, slots=True)
class Dated:
    """A backup's name and date; `confirmed` where somebody has said that the date is right."""

    name: str
    created: datetime
    confirmed: bool = False


def is_ahead(created: datetime, now: datetime) -> bool:
    """Tell whether a date lies beyond what two clocks may differ by."""
    return created > now + TOLERANCE


def ahead_problem(names: Sequence[str], now: datetime) -> str:
    """Say which backups are dated after now; "" where none is."""
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    return (
        f"{', '.join(names)} {verb} dated after now, {now:%Y-%m-%d %H:%M} UTC: a clock is or was wrong; {DISMISS_HINT}"
    )


def jump_problem(backups: Iterable[Dated], runs: Iterable[datetime], now: datetime) -> str:
    """Say where the clock jumped lately; "" where it did not.

    A jump is a gap between two backups, or the newest and now, in which no run is remembered either: after weeks of
    failed nights the clock is right. A host that was off looks the same as a clock that is ahead, so both are told, and
    believed after a week or once a date is confirmed.
    """
    there = sorted((each for each in backups if not is_ahead(each.created, now)), key=lambda each: each.created)
    remembered = sorted(each for each in runs if not is_ahead(each, now))
    for older, newer in reversed(list(itertools.pairwise([*there, Dated("", now)]))):
        if newer.created - older.created <= JUMP or now - newer.created > SETTLED:
            continue
        if any(each.confirmed for each in there if each.created >= newer.created):
            continue
        between = [each for each in remembered if older.created < each < newer.created]
        steps = itertools.pairwise([older.created, *between, newer.created])
        if max(after - before for before, after in steps) <= JUMP:
            continue
        days = (newer.created - older.created).days
        what = newer.name or f"now, {now:%Y-%m-%d %H:%M} UTC"
        confirm = f"; once its date is right: `mailarchiver-backup adopt {newer.name}`" if newer.name else ""
        return f"{days} days without any run lie between {older.name} and {what}: the host was off, or the clock jumped{confirm}"
    return ""
