"""The hourly health check: a backup that never ran is a problem too."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.adapters.archive.verification_keys import drop_stale_keys
from tasks.oversight.crashed_runs import mark_crashed_runs
from tasks.oversight.run_page import show_posture, show_status
from tasks.oversight.status import StatusReport, write_status_report
from tasks.prefect_objects import flow
from tasks.proxmox.look import look_at_guests
from tasks.run.context import config_of


@flow(name="watch", flow_run_name="watch over {installation}")
def watch(installation: str = "main", alarm: bool = True) -> StatusReport:
    """Hourly health check: overdue, shrunken or failed backups, mail at risk, guests' backups at Proxmox, low disk space, zombie runs; update catalogue, charts, report, posture and metrics.

    Runs whose process is gone are marked as crashed, so that the runs queued behind them start.

    Args:
        installation: Which installation, by its id in the settings file.
        alarm: Send notifications; a lasting problem repeats every `alarms.repeat_hours`.
    """
    config = config_of(installation)
    mark_crashed_runs()
    drop_stale_keys(now=datetime.now(UTC))
    look_at_guests(config, datetime.now(UTC))
    show_posture(config)
    if alarm:
        return show_status(config, looks=True)
    return write_status_report(config, now=datetime.now(UTC), looks=True)
