"""A run is dead when its process is: told by real processes."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun
from prefect.states import Running

from tasks.oversight.crashed_runs import GRACE, is_dead
from tests.stack.stack import wait_until

NOW = datetime.now(UTC)


def run_of(pid: int | None, *, age: timedelta = 2 * GRACE) -> FlowRun:
    state = Running(timestamp=NOW - age)  # type: ignore[call-overload]
    return FlowRun(id=uuid4(), flow_id=uuid4(), infrastructure_pid=None if pid is None else str(pid), state=state)


def test_a_living_run_is_left_alone_until_its_process_ends() -> None:
    """The number alone does not count: the process carries its run's id."""
    run = run_of(None)
    process = subprocess.Popen(["sleep", "60"], env={"PREFECT__FLOW_RUN_ID": str(run.id)})
    run.infrastructure_pid = str(process.pid)
    # Popen returns when the new program is loaded, a moment before the kernel shows its environment.
    wait_until(lambda: Path(f"/proc/{process.pid}/environ").read_bytes(), 10, "the process shows no environment")
    assert not is_dead(run, now=NOW)
    process.kill()
    process.wait(10)
    assert is_dead(run, now=NOW)


def test_a_number_that_another_program_has_by_now_is_no_life() -> None:
    assert is_dead(run_of(os.getpid()), now=NOW)


def test_what_nobody_can_tell_is_left_alone() -> None:
    """A run that changed its state a moment ago, or that no process of this machine stands for."""
    assert not is_dead(run_of(os.getpid(), age=GRACE / 2), now=NOW)
    assert not is_dead(run_of(None), now=NOW)
