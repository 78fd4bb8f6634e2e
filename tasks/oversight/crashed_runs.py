"""Mark runs as crashed that Prefect's server believes running and whose process is gone."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.step import step
from tasks.surroundings import surroundings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger(__name__)

TAG = "mailarchiver"
GRACE = timedelta(minutes=1)
MESSAGE = "process no longer exists: killed, or ended while the server was away; see the history and the report beside the backups"


@step(name="mark crashed runs")
def mark_crashed_runs() -> list[str]:
    """Mark runs of ours as crashed whose process on this machine is gone, and return their names.

    A run that ends while the server is away stays Running there, and holds its queue's one place, for ever. To be called where the pool's
    worker runs: only there do process ids mean anything. Outside a flow run there is no server to ask.
    """
    if not surroundings().has_server:
        return []
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    filters = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])),
    )
    closed = []
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=filters):
            if is_dead(run, now=datetime.now(UTC)):
                client.set_flow_run_state(run.id, Crashed(message=MESSAGE), force=True)
                logger.warning("Marked as crashed: %s", run.name)
                closed.append(run.name)
    return closed


def is_dead(run: FlowRun, *, now: datetime) -> bool:
    """Tell whether a run's process is gone, or its number another program's by now; a run that just changed its state is left alone."""
    changed = run.state.timestamp if run.state else None
    pid = run.infrastructure_pid or ""
    if not pid.isdecimal() or changed is None or now - changed < GRACE:
        return False
    try:
        return str(run.id).encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return Path("/proc/self").exists()  # where there is no /proc at all, nobody can tell
    except PermissionError:
        return False
