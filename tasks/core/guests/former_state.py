"""The way of a guest back to the state that it had before its backup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Former = Literal["running", "stopped"]
Now = Literal["running", "stopped", "between", "other"]
"""`between`: on its way up or down; `other`: frozen, paused, crashed, which no backup of ours makes it."""
Step = Literal["done", "start", "wait"]

# How much longer than it may take one that was asked to shut down is watched: it may yet do so, and is started then.
PATIENCE_FACTOR, PATIENCE_SECONDS = 2.0, 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A guest as it is: `run` tells this run of it from the one before ("" where it does not run)."""

    state: Now
    run: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """That a guest was asked to shut down: which run of it, at which time (seconds since 1970), and how long that may take."""

    run: str
    at: float
    limit_seconds: float

    @property
    def until(self) -> float:
        """Give the time at which it has surely ignored the request."""
        return self.at + PATIENCE_FACTOR * self.limit_seconds + PATIENCE_SECONDS


def way_back(former: Former, seen: Seen, asked: Asked | None, clock: float) -> Step:
    """Say what brings a guest to its former state now.

    One that still is the run that was asked to shut down may do so any moment: there is nothing to start, and nothing is over.

    >>> way_back("running", Seen("stopped"), None, 0), way_back("stopped", Seen("stopped"), None, 0)
    ('start', 'done')
    """
    if former == "stopped":
        return "done"
    if seen.state == "stopped":
        return "start"
    if seen.state == "between":
        return "wait"
    if asked is not None and seen.run == asked.run and asked.at <= clock < asked.until:
        return "wait"
    return "done"
