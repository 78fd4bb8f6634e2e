"""Reports as Prefect artifacts; outside a flow run nothing is written, the command line prints its own."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tasks.core.archive.manifest import Record
from tasks.core.errors import BackupError
from tasks.core.plain_text import markdown as harmless
from tasks.core.policy.due import verification_due
from tasks.core.policy.retention import RetentionPlan
from tasks.core.report.posture import posture_report
from tasks.core.report.texts import (
    backup_report,
    restored_content,
    retention_report,
    status_markdown,
    table,
    verification_report,
)
from tasks.core.units import duration_text
from tasks.oversight.posture import posture_seen
from tasks.oversight.status import StatusReport, lines_of, raise_alarms, write_status_report
from tasks.restore.outcome import Restored
from tasks.run.config import InstallationConfig
from tasks.run.history import notify
from tasks.run.own_backups import own_records
from tasks.surroundings import surroundings
from tasks.verification.verify import NotProven, Verified

logger = logging.getLogger(__name__)

CHARTS = ("Size and verdict of each backup", "Durations")


def report_backup(config: InstallationConfig, record: Record) -> None:
    """Show a finished backup on the run's page and announce it to automations (`mailarchiver.backup.completed`).

    Where the policy has it verified now, that is announced too (`mailarchiver.verification.due`), and a deployment's trigger runs it.
    """
    manifest = record.manifest
    logger.info("Backup %s: %d bytes in %s", record.file, record.bytes, duration_text(record.seconds))
    _artifact(f"backup-{manifest.installation}", backup_report(record))
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


def report_verification(config: InstallationConfig, verified: Verified) -> None:
    """Show a verdict on the run's page and announce it (`mailarchiver.verification.completed`); bring the status up to date.

    Raise NotProven for a verdict that proves nothing: no run may look green that found one.
    """
    installation, archive, verification = config.id, verified.archive, verified.verification
    _artifact(f"verification-{installation}", verification_report(archive, verification))
    surroundings().announce(
        "mailarchiver.verification.completed", installation, {"archive": archive, "verdict": verification.verdict}
    )
    announce_copies(config, archive)
    status_report = show_status(config)
    if verified.is_open:
        return
    told = any(each.kind == "verification" and archive in each.text for each in status_report.status.problems)
    if not verified.holds and not told:
        # An older backup, of a monthly drill: the status tells of the newest judged one alone.
        notify(
            config,
            "verification",
            f"{archive} of {config.id} is {verification.verdict}",
            "; ".join(verification.differences),
        )
    if not verified.holds:
        raise NotProven(verified)


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
    _artifact(f"restore-{installation}", text)
    surroundings().announce("mailarchiver.restore.completed", installation, {"archive": restored.backup})


def report_plan(config: InstallationConfig, backup: str, plan: str, *, what: str = "restore") -> None:
    """Show on the run's page what a restore or an upgrade would do, before anybody is asked."""
    title = f"restore {backup} into {config.id}" if what == "restore" else f"{backup} of {config.id}"
    _artifact(f"{what}-plan-{config.id}", f"# Plan: {title}\n\n{plan}\n")


def report_done(installation: str, what: str, text: str) -> None:
    """Show in a sentence what a run did that has no figures to tell."""
    _artifact(f"{what}-{installation}", f"# {what.replace('-', ' ').capitalize()} of {installation}\n\n{text}\n")


def show_report(key: str, text: str) -> None:
    """Show a text on the run's page."""
    _artifact(key, text)


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
    _artifact(
        f"approval-{config.id}", f"# {run.partition(' ')[0].capitalize()} of {config.id}: {outcome}\n\n{table(rows)}\n"
    )


def report_retention(config: InstallationConfig, plan: RetentionPlan) -> None:
    """Show on the run's page which backups stay and which go, and why."""
    _artifact(f"retention-{config.id}", retention_report(config.id, plan))


def show_status(config: InstallationConfig, *, looks: bool = False) -> StatusReport:
    """Bring everything up to date that shows how the backups stand (catalogue, charts, report, metrics), and raise alarms."""
    status_report = write_status_report(config, now=datetime.now(UTC), looks=looks)
    if surroundings().has_server:
        pictures = [(name, _data_address(drawing)) for name, drawing in zip(CHARTS, status_report.charts, strict=True)]
        _artifact(f"status-{config.id}", status_markdown(status_report.status, pictures))
        surroundings().store(
            "table",
            table=list(lines_of(status_report)),
            key=_key(f"catalogue-{config.id}"),
            description=f"Backups of {config.id}",
        )
    raise_alarms(config, status_report.status)
    return status_report


def show_posture(config: InstallationConfig) -> None:
    """Show on the run's page what makes a bad day worse; outside a flow run nobody would see it, and nothing is looked at."""
    if surroundings().has_server:
        seen = posture_seen(config, now=datetime.now(UTC))
        _artifact(f"posture-{config.id}", posture_report(config.id, seen, config.settings.accept_risks))


@contextmanager
def status_shown(config: InstallationConfig) -> Iterator[None]:
    """Show how the backups stand at the end of the block, however that comes; after a failure it changes nothing of it."""
    try:
        yield
    except Exception:
        try:
            show_status(config)
        except (BackupError, OSError) as error:
            logger.warning("how the backups stand cannot be shown: %s", error)
        raise
    show_status(config)


def _data_address(drawing: str) -> str:
    """Give a drawing as an address that holds it: Prefect's page for images would print that below it, over everything else."""
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.encode()).decode()


def _artifact(key: str, markdown: str) -> None:
    surroundings().store("markdown", markdown=harmless(markdown), key=_key(key))


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9-]", "-", name.lower())
