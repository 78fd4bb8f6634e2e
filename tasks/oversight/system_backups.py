"""What is told of backups of the system around."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.core.guests.failed import GuestsFailed
from tasks.core.report.texts import system_report, table
from tasks.core.units import duration_text
from tasks.guests.restore_container import RestoredGuest
from tasks.guests.runs import GuestRun
from tasks.oversight.reports import announce_copies, show_report
from tasks.run.config import InstallationConfig
from tasks.surroundings import surroundings


def report_system_backups(config: InstallationConfig, runs: Sequence[GuestRun]) -> None:
    """Show what a run did, and announce it (`mailarchiver.system.completed`); raise GuestsFailed where a guest has no new backup."""
    made = [each.record for each in runs if each.record is not None]
    show_report(
        f"system-{config.id}",
        system_report(config.id, made, [(each.subject, str(each.error)) for each in runs if each.error]),
    )
    outcomes = {each.subject: "failed" if each.error else "succeeded" for each in runs}
    surroundings().announce("mailarchiver.system.completed", config.id, {"guests": outcomes})
    for record in made:
        announce_copies(config, record.manifest.name)
    if any(each.error for each in runs):
        raise GuestsFailed(runs)


def report_restored_guest(config: InstallationConfig, done: RestoredGuest) -> None:
    """Show what a restore of a guest did."""
    rows = [
        ("Backup", done.backup), ("Of", done.subject), ("Restored as", f"{done.name} in {done.place}"),
        ("Took", duration_text(done.seconds)), ("Runs", "yes" if done.started else "no"), *(("Note", each) for each in done.notes),
    ]  # fmt: skip
    show_report(f"system-restore-{config.id}", f"# Restore of {done.subject} of {config.id}\n\n{table(rows)}\n")
