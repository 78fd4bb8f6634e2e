"""What a person reads of a run that copied backups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.core.plain_text import cell, line
from tasks.core.units import size_text


@dataclass(frozen=True, slots=True)
class TargetReport:
    """What was done at one target; `error` is "" where it was brought up to date."""

    target: str
    sent: tuple[str, ...] = ()
    sent_bytes: int = 0
    records: tuple[str, ...] = ()
    there: int = 0
    locked: tuple[tuple[str, datetime], ...] = ()
    lock_extended: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    read_back: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def told(self) -> dict[str, object]:
        """Give it as it stands in a command's JSON."""
        return {
            "target": self.target, "sent": list(self.sent), "sent_bytes": self.sent_bytes, "records": list(self.records),
            "there": self.there, "locked": {name: until.isoformat() for name, until in self.locked},
            "lock_extended": list(self.lock_extended), "removed": list(self.removed), "read_back": list(self.read_back), "damaged": list(self.damaged),
            "notes": list(self.notes), "error": self.error,
        }  # fmt: skip


def copies_report(installation: str, reports: Sequence[TargetReport]) -> str:
    """Describe a run that copied backups, one line for each target."""
    rows = [
        f"| {cell(each.target)} | {cell('**failed**' if each.error else f'up to date, {each.there} there')} |"
        f" {len(each.sent)} ({size_text(each.sent_bytes)}) | {len(each.records)} | {len(each.removed)} | {cell(_read(each))} |"
        for each in reports
    ]
    head = "| target | | sent | records brought up to date | removed | read back |\n|---|---|---|---|---|---|"
    text = "\n".join([f"# Copies of {line(installation)}\n", head, *rows, ""])
    told = [
        f"{each.target}: {note}"
        for each in reports
        for note in (*_locks(each), *each.notes, *([each.error] if each.error else []))
    ]
    return text + ("\n" + "\n".join(f"- {line(each)}" for each in told) + "\n" if told else "")


def _locks(report: TargetReport) -> list[str]:
    """Say what the target locks, and until when, as it answered."""
    if not report.locked:
        return []
    ends = sorted(until for _, until in report.locked)
    longer = f"; made longer for {', '.join(report.lock_extended)}" if report.lock_extended else ""
    return [f"{len(ends)} locked, the first until {ends[0]:%Y-%m-%d}, the last until {ends[-1]:%Y-%m-%d}{longer}"]


def _read(report: TargetReport) -> str:
    if report.damaged:
        return f"{len(report.read_back)} as sealed, **{', '.join(report.damaged)} damaged**"
    return f"{len(report.read_back)} as sealed" if report.read_back else "none was due"
