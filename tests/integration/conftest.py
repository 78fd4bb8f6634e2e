"""Fixtures that several integration tests ask for."""

from __future__ import annotations

import pytest

from tasks.copies.copy import copy_to_target


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail at once where a copy would wait and try again."""
    monkeypatch.setattr(
        "flows.copy_backups.copy_to_target", copy_to_target.with_options(retries=0, retry_delay_seconds=0)
    )
