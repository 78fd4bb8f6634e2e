"""Prefect's flow and task; in a process that does without Prefect, what stands for them there.

Importing Prefect takes longer than most commands work: a second and a half of a core. The command line runs flows as plain functions
(see `tasks/surroundings.py`), and says before it imports one that it does without. Every other process, a worker's above all, gets
Prefect's own objects: what Prefect sees is nothing but Prefect.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from prefect import Flow as Flow
    from prefect import Task as Task
    from prefect import flow as flow
    from prefect.cache_policies import NO_CACHE as NO_CACHE
    from prefect.input import RunInput as RunInput

P = ParamSpec("P")
R = TypeVar("R")

_HOMES = {
    "Flow": "prefect",
    "Task": "prefect",
    "flow": "prefect",
    "NO_CACHE": "prefect.cache_policies",
    "RunInput": "prefect.input",
}
_without = False


def do_without_prefect() -> None:
    """Give the flows and steps that are imported from here on what stands for Prefect's objects.

    Too late where one was imported already: then all are Prefect's own, and run as plain functions too.
    """
    global _without
    _without = "tasks.step" not in sys.modules


class PlainTask(Generic[P, R]):
    """What a step is made of without Prefect: its function, its name, and how it is retried."""

    def __init__(self, *, fn: Callable[P, R], name: str, retries: int, **options: Any) -> None:
        functools.update_wrapper(self, fn)
        self.fn, self.name, self.retries = fn, name, retries
        self.retry_delay_seconds = options["retry_delay_seconds"]
        self.retry_jitter_factor = options["retry_jitter_factor"]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function; a step does so in its own way."""
        return self.fn(*args, **kwargs)


class PlainFlow(Generic[P, R]):
    """A flow without Prefect: its function, and its name."""

    def __init__(self, function: Callable[P, R], name: str) -> None:
        functools.update_wrapper(self, function)
        self.fn, self.name = function, name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function."""
        return self.fn(*args, **kwargs)


def _plain_flow(*, name: str, **_of_prefect: Any) -> Callable[[Callable[P, R]], PlainFlow[P, R]]:
    return lambda function: PlainFlow(function, name)


def __getattr__(name: str) -> Any:
    """Give an object by its name, from Prefect only where this process works with it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _without:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "RunInput":  # a form is a model of values, no matter who asks for them
        from pydantic import BaseModel

        return BaseModel
    return {"Flow": PlainFlow, "Task": PlainTask, "flow": _plain_flow, "NO_CACHE": None}[name]
