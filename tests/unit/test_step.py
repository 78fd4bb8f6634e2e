"""Steps are retried alike with Prefect and without: only what waiting could cure, for about a minute, never in step with others."""

from __future__ import annotations

import time

import pytest

from tasks import step as steps
from tasks.core.errors import BackupError
from tasks.step import RETRIES, RETRY_DELAY_SECONDS, RETRY_JITTER, step


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

    assert one.task.retry_delay_seconds == [RETRY_DELAY_SECONDS * 2**attempt for attempt in range(RETRIES)]  # type: ignore[attr-defined]
    assert one.task.retry_jitter_factor == RETRY_JITTER  # type: ignore[attr-defined]
    assert steps.is_transient(BackupError("x", transient=True))
