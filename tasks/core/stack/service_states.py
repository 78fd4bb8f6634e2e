"""Decide how containers get back into the state they were in before they were borrowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.core.stack.installation import ServiceState

Action = Literal["start", "pause", "unpause", "stop"]

# A container that restarts over and over is one that its owner wants to run.
_WANTED_RUNNING = frozenset({"running", "restarting"})
_GONE = frozenset({"absent", "removing"})


@dataclass(frozen=True, slots=True)
class FormerState:
    """The state a service's container had before it was borrowed.

    `started_by_us` says that the borrower started it although it was not running, so that it must stop again.
    `stop_of_run` is the start time of the run that the borrower asked Docker to stop, empty while it did not: a container
    that still has this start time and runs is about to stop. Docker finishes a stop although its client was killed.
    """

    service: str
    container_id: str
    container_name: str
    state: ServiceState
    started_by_us: bool = False
    stop_of_run: str = ""
    stop_timeout_seconds: int = 30


@dataclass(frozen=True, slots=True)
class PresentState:
    """The state of a container now, and the start time of its present or last run."""

    state: ServiceState
    started_at: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one container needs, in order, to be as it was."""

    former: FormerState
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class WayBack:
    """The steps that are needed, in the order in which to take them, and the containers that no step can bring back."""

    steps: tuple[Step, ...]
    missing: tuple[FormerState, ...]


def way_back(former: Sequence[FormerState], present: Mapping[str, PresentState]) -> WayBack:
    """Decide the steps from the present states (by container id; absent when not in it) to the former ones.

    `former` is in start order. What must run is started in that order; what the borrower itself started is stopped
    afterwards, in reverse. A stop that is under way is waited for (by stopping) before the start. Whatever was not running
    and was not started by the borrower is left alone, and so is whatever is as it was: a second call after the steps were
    taken decides nothing.
    """
    steps: list[Step] = []
    stops: list[Step] = []
    missing: list[FormerState] = []
    for each in former:
        now = present.get(each.container_id)
        if now is None or now.state in _GONE:
            if each.state not in _GONE:
                missing.append(each)
            continue
        actions = _actions(each, now)
        if actions:
            (stops if actions == ("stop",) else steps).append(Step(each, actions))
    return WayBack(tuple(steps + stops[::-1]), tuple(missing))


def _actions(former: FormerState, now: PresentState) -> tuple[Action, ...]:
    runs_now = now.state in _WANTED_RUNNING
    if former.state not in _WANTED_RUNNING and former.state != "paused":
        return ("stop",) if former.started_by_us and (runs_now or now.state == "paused") else ()

    pause: tuple[Action, ...] = ("pause",) if former.state == "paused" else ()
    if former.stop_of_run and now.started_at == former.stop_of_run and (runs_now or now.state == "paused"):
        return ("stop", "start", *pause)
    if runs_now:
        return pause
    if now.state == "paused":
        return () if pause else ("unpause",)
    return ("start", *pause)
