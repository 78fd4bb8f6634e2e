"""What is told of guests' backups: a run's report, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.plain_text import cell
from tasks.core.proxmox.retention import Decision
from tasks.core.report.texts import table
from tasks.core.units import duration_text, size_text


@dataclass(frozen=True, slots=True)
class GuestReport:
    """How one guest's backup went; `error` is why there is none."""

    guest: str
    backup: str
    storage: str
    bytes: int
    seconds: float
    state: str
    warnings: tuple[str, ...]
    decisions: tuple[Decision, ...]
    paused: str
    error: str

    @property
    def outcome(self) -> str:
        """Say it in a word."""
        return "failed" if self.error else "warnings" if self.warnings else "succeeded"

    @property
    def told(self) -> dict[str, Any]:
        """Give it as JSON."""
        return {
            "guest": self.guest, "outcome": self.outcome, "backup": self.backup or None, "storage": self.storage, "bytes": self.bytes,
            "seconds": round(self.seconds, 1), "state": self.state or None, "warnings": list(self.warnings),
            "retention": [
                {"backup": each.name, "at": each.at.isoformat(), "keep": each.keep, "reason": each.reason} for each in self.decisions
            ],
            "retention_paused": self.paused or None, "error": self.error or None,
        }  # fmt: skip


def guests_report(installation: str, reports: Sequence[GuestReport]) -> str:
    """Write what a run did at each guest."""
    parts = [f"# Proxmox backups of {installation}"]
    for each in reports:
        rows = [("Outcome", f"**{each.outcome}**")]
        if each.error:
            rows.append(("Because", each.error))
        else:
            rows += [
                ("Backup", each.backup), ("Size", size_text(each.bytes)), ("Took", duration_text(each.seconds)),
                ("State before and after", each.state),
            ]  # fmt: skip
        parts.append(f"## {each.guest}\n\n{table(rows)}")
        if each.warnings:
            parts.append("Warnings of the task:\n\n" + "\n".join(f"- {cell(line)}" for line in each.warnings))
        if each.paused:
            parts.append(f"Nothing was removed: {each.paused}.")
        if each.decisions:
            lines = [
                f"| {cell(one.name)} | {one.at:%Y-%m-%d %H:%M} | {'kept' if one.keep else 'goes' if each.paused else 'removed'} | {cell(one.reason)} |"
                for one in each.decisions
            ]
            parts.append("\n".join(["| backup | at (UTC) | | why |", "|---|---|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"
