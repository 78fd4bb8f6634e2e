"""Reports as Prefect artifacts; outside a flow run nothing is written, the command line prints its own."""

from __future__ import annotations

import logging
import re

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from tasks.core.errors import BackupError
from tasks.core.manifest import Record
from tasks.core.report_texts import backup_report, duration_text, table, verification_report
from tasks.restoring import Restored
from tasks.step import in_flow_run
from tasks.verifying import Verified

logger = logging.getLogger(__name__)


def report_backup(record: Record) -> None:
    """Show a finished backup on the run's page and announce it to automations (`mailarchiver.backup.completed`)."""
    manifest = record.manifest
    logger.info("Backup %s: %d bytes in %s", record.file, record.bytes, duration_text(record.seconds))
    _artifact(f"backup-{manifest.installation}", backup_report(record))
    payload = {"installation": manifest.installation, "archive": manifest.name, "bytes": record.bytes}
    _announce("mailarchiver.backup.completed", manifest.installation, payload)


def report_verification(installation: str, verified: Verified) -> None:
    """Show a verdict on the run's page and announce it (`mailarchiver.verification.completed`).

    Within a flow run, raise BackupError for a verdict that proves nothing: the run must not look green.
    """
    archive, verification = verified.archive, verified.verification
    _artifact(f"verification-{installation}", verification_report(archive, verification))
    _announce(
        "mailarchiver.verification.completed", installation, {"archive": archive, "verdict": verification.verdict}
    )
    if in_flow_run() and verification.verdict not in ("verified", "legacy"):
        raise BackupError(f"{archive} is {verification.verdict}: {'; '.join(verification.differences)}")


def report_restore(installation: str, restored: Restored) -> None:
    """Show what a restore did, and how it is taken back."""
    kept = restored.kept
    rows = [
        ("Backup", restored.backup),
        ("Took", duration_text(restored.seconds)),
        ("Downtime", duration_text(restored.downtime_seconds)),
        ("Content", f"{restored.rows:,} rows in {restored.tables} tables, equal to the backup"),
        ("Former data", f"kept as {kept.database} until `mailarchiver-backup commit`" if kept else "untouched"),
        ("Mail accounts in quarantine", str(restored.quarantined)),
    ]
    text = f"# Restore of {installation}\n\n{table(rows)}\n\nTo take it back: `mailarchiver-backup rollback`.\n"
    if restored.quarantined:
        text += "\nThe mail accounts neither synchronise nor delete until `mailarchiver-backup lift-quarantine`.\n"
    _artifact(f"restore-{installation}", text)
    _announce("mailarchiver.restore.completed", installation, {"archive": restored.backup})


def _artifact(key: str, markdown: str) -> None:
    if not in_flow_run():
        return
    try:
        create_markdown_artifact(markdown=markdown, key=re.sub(r"[^a-z0-9-]", "-", key.lower()))
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises: the work is done and must not count as failed
        logger.warning("the report could not be stored in Prefect: %s", error)


def _announce(event: str, installation: str, payload: dict[str, object]) -> None:
    if in_flow_run():
        emit_event(
            event=event,
            resource={
                "prefect.resource.id": f"mailarchiver.installation.{installation}",
                "prefect.resource.name": installation,
            },
            payload=payload,
        )
