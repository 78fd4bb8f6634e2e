"""What a person reads of a run that copied backups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
            "there": self.there, "removed": list(self.removed), "read_back": list(self.read_back), "damaged": list(self.damaged),
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
        f"{each.target}: {note}" for each in reports for note in (*each.notes, *([each.error] if each.error else []))
    ]
    return text + ("\n" + "\n".join(f"- {line(each)}" for each in told) + "\n" if told else "")


def _read(report: TargetReport) -> str:
    if report.damaged:
        return f"{len(report.read_back)} as sealed, **{', '.join(report.damaged)} damaged**"
    return f"{len(report.read_back)} as sealed" if report.read_back else "none was due"
