"""The step: a Prefect task that also runs without Prefect.

Within a flow run a step is an ordinary task: seen, timed and retried by Prefect. When a flow's function is called directly, as the command
line does, Prefect's engine would start a server for it (10 s, 250 MB), so a step then runs as a plain function with the same retries.
A restore must not depend on a server.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext

from tasks.core.errors import BackupError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 2
RETRY_DELAY_SECONDS = 10


def is_transient(error: BaseException) -> bool:
    """Tell whether waiting could cure it: the one retry policy there is."""
    return isinstance(error, BackupError) and error.transient


def in_flow_run() -> bool:
    """Tell whether Prefect is watching."""
    return FlowRunContext.get() is not None


async def _retry_if_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    found = await state.aresult(raise_on_failure=False)
    return isinstance(found, BaseException) and is_transient(found)


@overload
def step(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    run_name: str | None = None,
    retries: int = RETRIES,
    retry_delay_seconds: float = RETRY_DELAY_SECONDS,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def step(
    function: Callable[P, R] | None = None,
    *,
    name: str | None = None,
    run_name: str | None = None,
    retries: int = RETRIES,
    retry_delay_seconds: float = RETRY_DELAY_SECONDS,
) -> Any:
    """Make a function a step of our flows.

    It is retried only on transient errors, and so must be safe to run twice; give `retries=0` to one that is not. `run_name` may name
    parameters in braces, as Prefect's `task_run_name`.
    """
    if function is None:
        return functools.partial(
            step, name=name, run_name=run_name, retries=retries, retry_delay_seconds=retry_delay_seconds
        )
    task: Task[P, R] = Task(
        fn=function,
        name=name or function.__name__.replace("_", " "),
        # Without one Prefect adds a few random letters to the name.
        task_run_name=run_name or name or function.__name__.replace("_", " "),
        retries=retries,
        retry_delay_seconds=retry_delay_seconds,
        retry_condition_fn=_retry_if_transient,
        cache_policy=NO_CACHE,
        persist_result=False,
    )

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if in_flow_run():
            return task(*args, **kwargs)
        return _run_plainly(function, retries, retry_delay_seconds, *args, **kwargs)

    run.task = task  # type: ignore[attr-defined]
    return run


def _run_plainly(function: Callable[P, R], retries: int, delay_seconds: float, *args: P.args, **kwargs: P.kwargs) -> R:
    for attempt in range(retries + 1):
        begun = time.monotonic()
        try:
            result = function(*args, **kwargs)
            logger.debug("%s took %.2f s", function.__name__.replace("_", " "), time.monotonic() - begun)
            return result
        except BackupError as error:
            if not error.transient or attempt == retries:
                raise
            logger.warning("%s failed, trying again in %g s: %s", function.__name__, delay_seconds, error.message)
            time.sleep(delay_seconds)
    raise AssertionError("unreachable")
