"""Status, posture and a verification's verdict, which changes both, shown on a run's page."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tasks.core.errors import BackupError
from tasks.core.report.posture import posture_report
from tasks.core.report.texts import status_markdown, verification_report
from tasks.oversight.posture import posture_seen
from tasks.oversight.reports import announce_copies, key_of, show_report
from tasks.oversight.status import StatusReport, lines_of, raise_alarms, write_status_report
from tasks.run.config import InstallationConfig
from tasks.run.history import notify
from tasks.surroundings import surroundings
from tasks.verification.verify import NotProven, Verified

logger = logging.getLogger(__name__)

CHARTS = ("Size and verdict of each backup", "Durations")


def report_verification(config: InstallationConfig, verified: Verified) -> None:
    """Show a verdict on the run's page and announce it (`mailarchiver.verification.completed`); bring the status up to date.

    Raise NotProven for a verdict that proves nothing: no run may look green that found one.
    """
    installation, archive, verification = config.id, verified.archive, verified.verification
    show_report(f"verification-{installation}", verification_report(archive, verification))
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


def show_status(config: InstallationConfig, *, looks: bool = False) -> StatusReport:
    """Bring everything up to date that shows how the backups stand (catalogue, charts, report, metrics), and raise alarms."""
    status_report = write_status_report(config, now=datetime.now(UTC), looks=looks)
    if surroundings().has_server:
        pictures = [(name, _data_address(drawing)) for name, drawing in zip(CHARTS, status_report.charts, strict=True)]
        show_report(f"status-{config.id}", status_markdown(status_report.status, pictures))
        surroundings().store(
            "table",
            table=list(lines_of(status_report)),
            key=key_of(f"catalogue-{config.id}"),
            description=f"Backups of {config.id}",
        )
    raise_alarms(config, status_report.status)
    return status_report


def show_posture(config: InstallationConfig) -> None:
    """Show on the run's page what makes a bad day worse; outside a flow run nobody would see it, and nothing is looked at."""
    if surroundings().has_server:
        seen = posture_seen(config, now=datetime.now(UTC))
        show_report(f"posture-{config.id}", posture_report(config.id, seen, config.settings.accept_risks))


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
