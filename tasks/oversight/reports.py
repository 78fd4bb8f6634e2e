"""Reports as Prefect artifacts; outside a flow run nothing is written, the command line prints its own."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tasks.core.archive.manifest import Record
from tasks.core.plain_text import markdown as harmless
from tasks.core.policy.due import verification_due
from tasks.core.policy.retention import RetentionPlan
from tasks.core.report.texts import (
    backup_report,
    restored_content,
    retention_report,
    table,
)
from tasks.core.units import duration_text
from tasks.run.config import InstallationConfig
from tasks.run.history import notify
from tasks.run.own_backups import own_records
from tasks.surroundings import surroundings

if TYPE_CHECKING:
    from tasks.restore.outcome import Restored

logger = logging.getLogger(__name__)


def report_backup(config: InstallationConfig, record: Record) -> None:
    """Show a finished backup on the run's page and announce it to automations (`mailarchiver.backup.completed`).

    Where the policy has it verified now, that is announced too (`mailarchiver.verification.due`), and a deployment's trigger runs it.
    """
    manifest = record.manifest
    logger.info("Backup %s: %d bytes in %s", record.file, record.bytes, duration_text(record.seconds))
    show_report(f"backup-{manifest.installation}", backup_report(record))
    if manifest.no_census:
        notify(
            config,
            "verification",
            f"{manifest.name} of {config.id} has no census",
            f"pg_dump wrote it to its end, but we could not read it: {manifest.no_census}. A verification shows whether it restores.",
        )
    payload = {"installation": manifest.installation, "archive": manifest.name, "bytes": record.bytes}
    surroundings().announce("mailarchiver.backup.completed", manifest.installation, payload)
    if surroundings().verifies_by_event and verification_due(
        own_records(config, now=datetime.now(UTC)), config.settings.verification
    ):
        surroundings().announce("mailarchiver.verification.due", manifest.installation, payload)
    announce_copies(config, manifest.name)


def announce_copies(config: InstallationConfig, archive: str) -> None:
    """Announce that there is something new to copy (`mailarchiver.copies.due`), where the settings name targets."""
    if config.settings.copies:
        surroundings().announce("mailarchiver.copies.due", config.id, {"installation": config.id, "archive": archive})


def report_restore(installation: str, restored: Restored) -> None:
    """Show what a restore did, and how it is taken back."""
    kept = restored.kept
    rows = [
        ("Backup", restored.backup),
        ("Took", duration_text(restored.seconds)),
        ("Downtime", duration_text(restored.downtime_seconds)),
        (
            "Content",
            restored_content(
                restored.comparisons,
                rows=restored.rows,
                tables=restored.tables,
                left_out=restored.left_out,
                differences=restored.differences,
            ),
        ),
        ("Former data", f"kept as {kept.database} until `mailarchiver-backup commit`" if kept else "none is kept"),
        ("Mail accounts in quarantine", str(restored.quarantined)),
    ]
    text = f"# Restore of {installation}\n\n{table(rows)}\n"
    if kept:
        text += "\nTo take it back: `mailarchiver-backup rollback`.\n"
    text += "".join(f"\nNote: {note}.\n" for note in restored.notes)
    if restored.quarantined:
        text += "\nThe mail accounts neither synchronise nor delete until `mailarchiver-backup lift-quarantine`.\n"
    show_report(f"restore-{installation}", text)
    surroundings().announce("mailarchiver.restore.completed", installation, {"archive": restored.backup})


def report_plan(config: InstallationConfig, backup: str, plan: str, *, what: str = "restore") -> None:
    """Show on the run's page what a restore or an upgrade would do, before anybody is asked."""
    title = f"restore {backup} into {config.id}" if what == "restore" else f"{backup} of {config.id}"
    show_report(f"{what}-plan-{config.id}", f"# Plan: {title}\n\n{plan}\n")


def report_done(installation: str, what: str, text: str) -> None:
    """Show in a sentence what a run did that has no figures to tell."""
    show_report(f"{what}-{installation}", f"# {what.replace('-', ' ').capitalize()} of {installation}\n\n{text}\n")


def report_approval(
    config: InstallationConfig, run: str, backup: str, outcome: str, by: str, at: datetime, problem: str
) -> None:
    """Show on the run's page who decided, what, and when."""
    rows = [
        ("Backup" if run.startswith("restore") else "What", backup),
        ("Decision", f"**{outcome}**"),
        ("By", by),
        ("At", f"{at:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    if problem:
        rows.append(("Because", problem))
    show_report(
        f"approval-{config.id}", f"# {run.partition(' ')[0].capitalize()} of {config.id}: {outcome}\n\n{table(rows)}\n"
    )


def report_retention(config: InstallationConfig, plan: RetentionPlan) -> None:
    """Show on the run's page which backups stay and which go, and why."""
    show_report(f"retention-{config.id}", retention_report(config.id, plan))


def show_report(key: str, text: str) -> None:
    """Show a text on the run's page."""
    surroundings().store("markdown", markdown=harmless(text), key=key_of(key))


def key_of(name: str) -> str:
    """Give the key of a report: what Prefect takes for one."""
    return re.sub(r"[^a-z0-9-]", "-", name.lower())
