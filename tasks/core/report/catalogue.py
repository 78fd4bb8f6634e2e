"""The catalogue: one line for each backup, as people want to look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.core.archive.manifest import Record
from tasks.core.policy.retention import RetentionPlan
from tasks.core.units import duration_text, size_text


@dataclass(frozen=True, slots=True)
class CatalogueLine:
    """One backup: everything is text, ready for a table."""

    backup: str
    method: str
    age: str
    size: str
    verdict: str
    took: str
    downtime: str
    location: str
    kept: str
    copies: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """What is known of an archive in the repository.

    `record` is None for a legacy one; `whose` says why it does not count, "" where it does. `copies` is how it stands by
    the 3-2-1-1-0 rule.
    """

    name: str
    location: str
    bytes: int
    created: datetime | None
    record: Record | None
    whose: str = ""
    copies: str = ""


def catalogue(listed: Sequence[Listed], plan: RetentionPlan, *, now: datetime) -> list[CatalogueLine]:
    """Write the lines, newest first; `kept` says why retention keeps a backup, or that it goes."""
    decisions = {decision.name: decision for decision in plan.decisions}
    lines = []
    for each in listed:
        decision, record = decisions.get(each.name), each.record
        why = "; ".join(decision.reasons) if decision else "not considered"
        lines.append(
            CatalogueLine(
                backup=each.name,
                method=_method(record),
                age=duration_text((now - each.created).total_seconds()) if each.created else "unknown",
                size=size_text(each.bytes),
                verdict=each.whose or _verdict(record),
                took=duration_text(record.seconds) if record else "",
                downtime=duration_text(record.manifest.downtime_seconds)
                if record and record.manifest.downtime_seconds
                else "none",
                location=each.location,
                kept=why if decision is None or decision.keep else f"goes: {why}",
                copies=each.copies,
            )
        )
    return lines


def _method(record: Record | None) -> str:
    if record is None:
        return "legacy"
    words = [
        record.manifest.subject or record.manifest.method,
        record.manifest.format,
        *(["encrypted"] if record.manifest.encryption else []),
    ]
    return ", ".join(words)


def _verdict(record: Record | None) -> str:
    found = record.verification if record else None
    if record is None or found is None:
        return "not verified"
    if found.verdict == "verified" and record.verified and found.opened_with == "verification key":
        return "verified though sealed"
    return found.verdict if found.verdict != "verified" or record.verified else "not verified"
