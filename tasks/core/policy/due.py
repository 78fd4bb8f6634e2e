"""Decisions of the automated backup: is it still wanted, and is a verification due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tasks.core.archive.manifest import Record
from tasks.core.policy.settings import VerificationPolicy


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
    """Tell whether the newest backup (`records` newest first) is to be verified now: each `every`-th is, counted from the last."""
    if policy.when != "after_backup" or not records:
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
