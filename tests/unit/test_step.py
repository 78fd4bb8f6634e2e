"""Steps are retried alike with Prefect and without: only what waiting could cure, for about a minute, never in step with others."""

from __future__ import annotations

import time

import pytest
from prefect import Task

from tasks import step as steps
from tasks.core.errors import BackupError
from tasks.step import RETRIES, RETRY_DELAY_SECONDS, RETRY_JITTER, Step, step


def test_waits_grow_and_last_longer_than_a_daemons_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)

    @step
    def always_away() -> None:
        raise BackupError("the engine is away", transient=True)

    with pytest.raises(BackupError, match="the engine is away"):
        always_away()

    assert len(waits) == RETRIES
    for attempt, seconds in enumerate(waits):
        plain = RETRY_DELAY_SECONDS * 2**attempt
        assert plain <= seconds <= plain * (1 + RETRY_JITTER)
    assert sum(waits) >= 60


def test_what_waiting_cannot_cure_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))

    @step
    def wrong() -> None:
        raise BackupError("wrong password")

    with pytest.raises(BackupError, match="wrong password"):
        wrong()


def test_prefect_gets_the_same_waits() -> None:
    @step(name="named")
    def one() -> int:
        return 1

    assert one.retry_delay_seconds == [RETRY_DELAY_SECONDS * 2**attempt for attempt in range(RETRIES)]
    assert one.retry_jitter_factor == RETRY_JITTER
    assert steps.is_transient(BackupError("x", transient=True))


def test_a_step_with_other_options_is_a_step() -> None:
    tries = []

    @step
    def away() -> None:
        """Fail for a while."""
        tries.append(1)
        raise BackupError("away", transient=True)

    patient = away.with_options(name="patient", retries=2, retry_delay_seconds=0)

    with pytest.raises(BackupError):
        patient()
    assert isinstance(patient, Step)
    assert (patient.name, len(tries), away.retries) == ("patient", 3, RETRIES)
    assert patient.__doc__ == "Fail for a while."


def test_a_step_is_a_task_where_prefect_watches() -> None:
    """Submitted and called alike, with Prefect's own states; without a flow run, the plain function."""

    @step(name="add", run_name="add {one}")
    def add(one: int, other: int) -> int:
        return one + other

    assert isinstance(add, Task)
    assert add(1, 2) == add.fn(1, 2) == 3
