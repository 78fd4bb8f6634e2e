"""What is told of guests' backups: a run's report, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.core.plain_text import cell
from tasks.core.proxmox.judge_guests import NOTHING_PROVEN
from tasks.core.proxmox.proofs import GuestProof, GuestProofs
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


def proofs_report(installation: str, proofs: Sequence[GuestProof]) -> str:
    """Write how tests of guests' backups ended."""
    parts = [f"# Guests of {installation}, restored as a test"]
    for each in proofs:
        age = duration_text((each.at - each.backup_at).total_seconds()) if each.backup_at else ""
        counted = "" if each.mails is None else f"{each.mails}, attachments {each.attachments}"
        expected = (
            f"{each.expected} (in {each.expected_from})" if each.expected is not None else "nothing to compare with"
        )
        rows = [
            ("Verdict", f"**{each.verdict}**"), *([("Because", each.problem)] if each.problem else []), ("Backup", each.backup or "none"),
            ("Its age", age), ("Restored as guest", str(each.restored_as or "not restored")), ("Restored in", duration_text(each.restore_seconds)),
            ("Booted, and programs run inside", "yes" if each.booted else "no"),
            ("Mail accounts neutralised before the application was started", "not done" if each.accounts is None else str(each.accounts)),
            ("Mails", counted or "not counted"), ("Mails in the application's own backup before", expected),
            ("Application answered", "yes" if each.application else "no"), ("Took", duration_text(each.seconds)),
        ]  # fmt: skip
        parts.append(f"## Guest {each.guest}\n\n{table(rows)}")
    return "\n\n".join(parts) + "\n"


def guest_lines(
    seen: GuestsSeen, guests: Sequence[int], *, now: datetime, proofs: GuestProofs = NOTHING_PROVEN
) -> list[CatalogueLine]:
    """Write the catalogue's lines of guests' newest backups at each place; whether one stays is Proxmox's to say."""
    words = {"verified": "verified", "failed": "test failed"}
    tried = {
        each.backup: words[each.verdict]
        for some in (proofs.proven, proofs.last)
        for each in some.values()
        if each.backup
    }
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
                    size=size_text(each.bytes), verdict=tried.get(each.name) or {"ok": "verified by the backup server", "failed": "failed"}.get(each.verification, "not verified"),
                    took="", downtime="", location=each.place, kept="protected at Proxmox" if each.protected else "as Proxmox's retention has it",
                )
            )  # fmt: skip
    return lines
