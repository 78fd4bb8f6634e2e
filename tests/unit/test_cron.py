"""A schedule that the settings take is one that Prefect takes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.client.schemas.schedules import CronSchedule

from tasks.core.policy.cron import cron_problem


@pytest.mark.parametrize(
    "text",
    [
        "30 3 * * *",
        "0 5 1 * *",
        "*/15 0-6,22 1-7 jan,DEC mon-fri",
        "0 0 l * *",
        "0 0 * * FRI#2",
        "5/10 * * * 7",
        "  0  2 * * * ",
    ],
)
def test_schedules(text: str) -> None:
    """Numbers, names, lists, ranges, steps."""
    assert cron_problem(text) == ""
    CronSchedule(cron=text)


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "* * * foo *", "* * * * mon#9",
     "-1 * * * *", "1- * * * *", "1,,2 * * * *", "@daily", "x" * 5000, "9999999999 * * * *", "\u00b2 * * * *", "*-5 * * * *", "a\0b * * * *"],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    """The field is named."""
    assert cron_problem(text).startswith("has ")


parts = st.sampled_from(
    [
        "*",
        "0",
        "1",
        "7",
        "12",
        "23",
        "31",
        "59",
        "60",
        "*/5",
        "*/0",
        "1-5",
        "5-1",
        "mon",
        "jan",
        "fri#3",
        "l",
        "1,2",
        "2/3",
        "99",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.tuples(parts, parts, parts, parts, parts))
def test_what_we_take_prefect_takes(fields: tuple[str, ...]) -> None:
    """Else `serve` would find out."""
    text = " ".join(fields)
    if cron_problem(text) == "":
        CronSchedule(cron=text)
