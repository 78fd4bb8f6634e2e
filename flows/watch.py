"""Look after the backups between the nights: silence is an alarm too."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow

from tasks.oversight.crashed_runs import bury_dead_runs
from tasks.oversight.reports import show_status
from tasks.oversight.status import StatusReport, write_status_report
from tasks.run.context import config_of


@flow(name="watch", flow_run_name="watch over {installation}")
def watch(installation: str = "main", alarm: bool = True) -> StatusReport:
    """Bring catalogue, charts, report and metrics up to date, and tell people what is wrong: overdue, shrunk, refuted, little room.

    Runs whose process is gone are marked as crashed, so that those behind them get their turn.

    Args:
        installation: Which installation, by its id in the settings file.
        alarm: Tell people too; each kind of problem again only after a while.
    """
    config = config_of(installation)
    bury_dead_runs()
    return show_status(config) if alarm else write_status_report(config, now=datetime.now(UTC))
