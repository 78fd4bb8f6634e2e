"""Look after the backups between the nights: silence is an alarm too."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow

from tasks.oversight.crashed_runs import bury_dead_runs
from tasks.oversight.reports import show_standing
from tasks.oversight.status import Standing, write_standing
from tasks.run.context import work_of


@flow(name="watch", flow_run_name="watch over {installation}")
def watch(installation: str = "main", alarm: bool = True) -> Standing:
    """Bring catalogue, charts, report and metrics up to date, and tell people what is wrong: overdue, shrunk, refuted, little room.

    Runs whose process is gone are marked as crashed, so that those behind them get their turn.

    Args:
        installation: Which installation, by its id in the settings file.
        alarm: Tell people too; each kind of trouble again only after a while.
    """
    work = work_of(installation)
    bury_dead_runs()
    return show_standing(work) if alarm else write_standing(work, now=datetime.now(UTC))
