"""Decisions of the automated backup: is it still wanted, and is a verification due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks.core.archive.manifest import Record
from tasks.core.policy.settings import VerificationPolicy

# A little less than a day, so that a nightly run that begins a minute early is verified too.
ONCE_A_DAY = timedelta(hours=20)


def already_done(records: Sequence[Record], method: str, scheduled_at: datetime | None) -> Record | None:
    """Find the backup that supersedes a scheduled run: one begun after the time this run was meant for.

    After three nights without power Prefect runs all three missed runs; the first makes the backup, the others find it here. A run by
    hand (`scheduled_at` None) is always wanted. `records` are newest first.
    """
    if scheduled_at is None:
        return None
    return next(
        (each for each in records if each.manifest.method == method and each.manifest.created_at > scheduled_at), None
    )


def verification_due(records: Sequence[Record], policy: VerificationPolicy) -> bool:
    """Tell whether the newest backup (`records` newest first) is to be verified now: each `every`-th is, counted from the last.

    An incremental one proves its whole chain, which may be hundreds of gigabytes: hourly ones are verified once a day.
    """
    if policy.when != "after_backup" or not records:
        return False
    newest = records[0]
    if newest.manifest.is_incremental:
        since = newest.manifest.created_at - ONCE_A_DAY
        if any(each.verification is not None and each.manifest.created_at > since for each in records):
            return False
    unverified = 0
    for record in records:
        if record.verification is not None:
            break
        unverified += 1
    return unverified >= policy.every


def stalest(records: Sequence[Record]) -> Record | None:
    """Find the backup whose verification lies longest ago; one that was never verified counts as longest, of those the oldest."""

    def when(record: Record) -> tuple[bool, datetime]:
        found = record.verification
        return (found is not None, found.at if found is not None else record.manifest.created_at)

    return min(records, key=when, default=None)
