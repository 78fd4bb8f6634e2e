"""The history of runs: one line for each, so that a night that failed is seen although it left no backup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import ValidationError

from tasks.core.archive.values import Moment, Seconds, Value

Outcome = Literal["succeeded", "failed", "interrupted", "busy", "approved", "refused"]
BACKUP_RUNS = ("hot backup", "online backup", "complete backup")
HOST_RUNS = ("host backup",)
KEPT_LINES = 2000


class Entry(Value):
    """How one run ended: what it was, when it began, how long it took, and in a sentence why it failed."""

    run: str
    at: Moment
    seconds: Seconds
    outcome: Outcome
    message: str = ""


def parse_history(lines: Iterable[str]) -> list[Entry]:
    """Read the entries, oldest first; a line that a crash cut short is passed over."""
    entries = []
    for line in lines:
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError:
            continue
    return entries


def last_backup_failed(entries: Sequence[Entry], runs: Sequence[str] = BACKUP_RUNS) -> Entry | None:
    """Give the last backup's entry where that run did not succeed; a run that found the lock taken says nothing."""
    last = next((each for each in reversed(entries) if each.run in runs and each.outcome != "busy"), None)
    return last if last is not None and last.outcome != "succeeded" else None
