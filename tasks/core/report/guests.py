"""What is told of guests' backups: a run's report, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.core.plain_text import cell
from tasks.core.proxmox.retention import Decision
from tasks.core.proxmox.seen import GuestsSeen
from tasks.core.report.catalogue import CatalogueLine
from tasks.core.report.texts import table
from tasks.core.units import duration_text, size_text

# Of each guest at each place.
LISTED = 5


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
        if each.backup:
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


def guest_lines(seen: GuestsSeen, guests: Sequence[int], *, now: datetime) -> list[CatalogueLine]:
    """Write the catalogue's lines of guests' newest backups at each place; whether one stays is Proxmox's to say."""
    lines = []
    for guest in guests:
        shown: dict[str, int] = {}
        for each in seen.of(guest):
            shown[each.place] = shown.get(each.place, 0) + 1
            if shown[each.place] > LISTED:
                continue
            lines.append(
                CatalogueLine(
                    backup=each.name, method=f"{seen.name_of(guest)}, as a whole", age=duration_text((now - each.at).total_seconds()),
                    size=size_text(each.bytes), verdict={"ok": "verified by the backup server", "failed": "failed"}.get(each.verification, "not verified"),
                    took="", downtime="", location=each.place, kept="protected at Proxmox" if each.protected else "as Proxmox's retention has it",
                )
            )  # fmt: skip
    return lines
