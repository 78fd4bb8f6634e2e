"""A calendar of nights: green where a backup was proven and is kept as asked, yellow where it is not yet, red where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from tasks.core.archive.manifest import Record
from tasks.core.policy.history import BACKUP_RUNS, Entry

Colour = Literal["green", "yellow", "red", "none"]
SHOWN_DAYS = 42


@dataclass(frozen=True, slots=True)
class Night:
    """A day (UTC) with its colour and why it has it."""

    day: date
    colour: Colour
    why: str


def nights(
    records: Sequence[Record],
    entries: Sequence[Entry],
    *,
    now: datetime,
    is_daily: bool,
    is_kept: Callable[[Record], bool] = lambda _: True,
    days: int = SHOWN_DAYS,
) -> list[Night]:
    """Give the last days, oldest first.

    The best backup of a day counts. A day after the first backup or run that has none is red where one is wanted each
    day (`is_daily`); today is, once a run has failed.
    """
    first = min([each.manifest.created_at for each in records] + [each.at for each in entries], default=now).date()
    found = []
    for day in (now.date() - timedelta(days=back) for back in range(days - 1, -1, -1)):
        made = [each for each in records if each.manifest.created_at.date() == day]
        failed = [
            each
            for each in entries
            if each.at.date() == day and each.run in BACKUP_RUNS and each.outcome in ("failed", "interrupted")
        ]
        if made:
            found.append(
                max((_night_of(day, each, is_kept(each)) for each in made), key=lambda each: _WORTH[each.colour])
            )
        elif failed:
            found.append(Night(day, "red", f"{failed[-1].run} {failed[-1].outcome}"))
        elif (
            is_daily
            and first <= day < now.date()
            and any(each.at.date() == day and each.run in BACKUP_RUNS for each in entries)
        ):
            found.append(Night(day, "none", "its backup was removed by retention"))
        elif is_daily and first <= day < now.date():
            found.append(Night(day, "red", "no backup"))
        else:
            found.append(Night(day, "none", ""))
    return found


_WORTH: dict[Colour, int] = {"none": 0, "red": 1, "yellow": 2, "green": 3}


def _night_of(day: date, record: Record, is_kept: bool) -> Night:
    name, verdict = record.manifest.name, record.verification
    if record.verified:
        return (
            Night(day, "green", f"{name}: verified")
            if is_kept
            else Night(day, "yellow", f"{name}: verified, and not kept as `require` asks")
        )
    if verdict is not None and verdict.verdict in ("different", "failed"):
        return Night(day, "red", f"{name}: {verdict.verdict}")
    return Night(day, "yellow", f"{name}: not verified")
