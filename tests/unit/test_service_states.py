"""P1, the decision: borrowed containers get back to their former state, and nothing else is touched."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from tasks.core.stack.installation import ServiceState
from tasks.core.stack.service_states import Action, FormerState, PresentState, way_back

STATES: tuple[ServiceState, ...] = get_args(ServiceState)

TABLE: list[tuple[ServiceState, ServiceState, tuple[Action, ...]]] = [
    # former, present, needed
    ("running", "exited", ("start",)),
    ("running", "created", ("start",)),
    ("running", "paused", ("unpause",)),
    ("running", "running", ()),
    ("running", "restarting", ()),
    ("restarting", "exited", ("start",)),
    ("paused", "exited", ("start", "pause")),
    ("paused", "running", ("pause",)),
    ("paused", "paused", ()),
    ("exited", "exited", ()),
    ("exited", "running", ()),
    ("created", "created", ()),
    ("created", "running", ()),
    ("dead", "dead", ()),
    ("absent", "absent", ()),
]


def former(name: str, state: ServiceState, *, started_by_us: bool = False) -> FormerState:
    """Make the former state of a container called like its service."""
    return FormerState(name, f"id-of-{name}", name, state, started_by_us)


@pytest.mark.parametrize(("before", "now", "needed"), TABLE)
def test_one_container(before: ServiceState, now: ServiceState, needed: tuple[Action, ...]) -> None:
    """Each former state is reached from each present one by these actions."""
    way = way_back([former("app", before)], {"id-of-app": PresentState(now, "later")})

    assert [step.actions for step in way.steps] == ([needed] if needed else [])


@pytest.mark.parametrize("now", ["absent", "removing"])
def test_a_container_that_is_gone_is_reported(now: ServiceState) -> None:
    """No step can bring a removed container back: it is named."""
    way = way_back([former("app", "running")], {"id-of-app": PresentState(now, "later")})

    assert way.steps == ()
    assert [each.service for each in way.missing] == ["app"]


def test_start_order_is_kept() -> None:
    """The server starts before the application that depends on it."""
    way = way_back(
        [former("postgres", "running"), former("app", "running")],
        {"id-of-postgres": PresentState("exited", "later"), "id-of-app": PresentState("exited", "later")},
    )

    assert [step.former.service for step in way.steps] == ["postgres", "app"]


def test_what_the_borrower_started_stops_again_after_all_starts() -> None:
    """A server that was stopped before a restore is stopped after it; others that were stopped are left alone."""
    formers = [former("postgres", "exited", started_by_us=True), former("cache", "exited"), former("app", "running")]
    way = way_back(
        formers,
        {
            "id-of-postgres": PresentState("running", "later"),
            "id-of-cache": PresentState("running", "later"),
            "id-of-app": PresentState("exited", "later"),
        },
    )

    assert [(step.former.service, step.actions) for step in way.steps] == [("app", ("start",)), ("postgres", ("stop",))]


@pytest.mark.parametrize(
    ("before", "now", "started_at", "needed"),
    [
        ("running", "running", "first", ("stop", "start")),
        ("running", "running", "later", ()),
        ("running", "paused", "first", ("stop", "start")),
        ("running", "exited", "first", ("start",)),
        ("paused", "running", "first", ("stop", "start", "pause")),
        ("paused", "running", "later", ("pause",)),
        ("paused", "paused", "first", ("stop", "start", "pause")),
        ("paused", "exited", "first", ("start", "pause")),
    ],
)
def test_a_stop_under_way_is_waited_for(
    before: ServiceState, now: ServiceState, started_at: str, needed: tuple[Action, ...]
) -> None:
    """A container that Docker is about to stop still looks as it should: only its start time tells."""
    borrowed = FormerState("app", "id-of-app", "app", before, stop_of_run="first")
    (actions,) = [
        step.actions for step in way_back([borrowed], {"id-of-app": PresentState(now, started_at)}).steps
    ] or [()]

    assert actions == needed


@pytest.mark.parametrize(("before", "now"), list(product(STATES, STATES)))
def test_the_way_back_ends(before: ServiceState, now: ServiceState) -> None:
    """After the steps were taken nothing more is needed, whatever the two states were."""
    effect: dict[Action, ServiceState] = {"start": "running", "unpause": "running", "pause": "paused", "stop": "exited"}
    state = now
    for step in way_back([former("app", before)], {"id-of-app": PresentState(now, "later")}).steps:
        for action in step.actions:
            state = effect[action]

    assert way_back([former("app", before)], {"id-of-app": PresentState(state, "later")}).steps == ()
