"""What is told of guests' backups: the report of a run, its warnings, and the failure of a run that left a guest without one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tasks.core.guests.failed import GuestsFailed
from tasks.core.report.guests import guests_report
from tasks.oversight.reports import show_report
from tasks.proxmox.look import look_at_guests
from tasks.proxmox.report import GuestRun
from tasks.run.config import InstallationConfig
from tasks.run.history import notify
from tasks.surroundings import surroundings


def report_guests(config: InstallationConfig, runs: Sequence[GuestRun]) -> None:
    """Show what a run did and what is there now, send a notification of warnings, and announce the end (`mailarchiver.proxmox.completed`).

    Raise GuestsFailed where a guest failed.
    """
    look_at_guests(config, datetime.now(UTC))
    reports = [each.report for each in runs]
    show_report(f"proxmox-{config.id}", guests_report(config.id, reports))
    surroundings().announce(
        "mailarchiver.proxmox.completed", config.id, {"guests": {each.guest: each.outcome for each in reports}}
    )
    if warned := [each for each in reports if each.outcome == "warnings"]:
        text = "\n".join(f"{each.guest}: {'; '.join(each.warnings[:5])}" for each in warned)
        notify(config, "proxmox", f"backups of guests of {config.id} ended with warnings", text)
    if any(each.error for each in runs):
        raise GuestsFailed(runs)
