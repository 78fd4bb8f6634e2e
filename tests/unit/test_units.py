"""Sizes and durations are told in the unit that a person would take."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.units import duration_text, size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_500_000_000, "1.5 GB"),
        (999_999_999_999, "1.0 TB"),
        (5e15, "5000.0 TB"),
        (-1_500_000, "-1.5 MB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    """The unit changes where the number would get four digits."""
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.9, "59.9 s"),
        (59.97, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (47 * 3600, "47 h 0 min"),
        (48 * 3600, "2 d 0 h"),
        (400 * 86400, "400 d 0 h"),
        (-90, "-1 min 30 s"),
        (-3 * 86400, "-3 d 0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Two units are enough; a backup dated ahead of the clock has an age below nothing, told alike."""
    assert duration_text(seconds) == text


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1e14))
def test_no_number_is_as_large_as_its_next_unit(number: float) -> None:
    """There are no 1000.0 kB, no 60 s and no 60 min."""
    size, _ = size_text(number).split(" ")
    parts = dict(zip((found := re.findall(r"[\d.]+|[a-z]+", duration_text(number)))[1::2], found[::2], strict=True))

    assert float(size) < 1000
    assert all(float(parts.get(unit, 0)) < limit for unit, limit in (("s", 60), ("min", 60), ("h", 48)))
