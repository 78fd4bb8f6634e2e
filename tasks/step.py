"""The step: a Prefect task that also runs without Prefect.

Within a flow run a step is an ordinary task: seen, timed and retried by Prefect. When a flow's function is called directly, as the command
line does, Prefect's engine would start a server for it (10 s, 250 MB), so a step then runs as a plain function with the same retries.
A restore must not depend on a server.
"""

from __future__ import annotations

import functools
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, overload

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext

from tasks.core.errors import BackupError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# Together about a minute, longer than a Docker daemon or a PostgreSQL takes to restart: 2, 4, 8, 16 and 32 s, each up to a third longer, so that
# two runs that failed together do not try again together.
RETRIES = 5
RETRY_DELAY_SECONDS = 2.0
RETRY_JITTER = 0.3


def is_transient(error: BaseException) -> bool:
    """Tell whether waiting could cure it: the one retry policy there is."""
    return isinstance(error, BackupError) and error.transient


def in_flow_run() -> bool:
    """Tell whether Prefect is watching."""
    return FlowRunContext.get() is not None


def inner_flow(wanted: Flow[P, R]) -> Callable[P, R]:
    """Give a flow as another one calls it: a subflow where Prefect is watching, else its plain function."""
    return wanted if in_flow_run() else wanted.fn


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
    delays = [retry_delay_seconds * 2**attempt for attempt in range(retries)]
    task: Task[P, R] = Task(
        fn=function,
        name=name or function.__name__.replace("_", " "),
        # Without one Prefect adds a few random letters to the name.
        task_run_name=run_name or name or function.__name__.replace("_", " "),
        retries=retries,
        retry_delay_seconds=delays or None,
        retry_jitter_factor=RETRY_JITTER if delays else None,
        retry_condition_fn=_retry_if_transient,
        cache_policy=NO_CACHE,
        persist_result=False,
    )

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if in_flow_run():
            return task(*args, **kwargs)
        return _run_plainly(function, delays, *args, **kwargs)

    run.task = task  # type: ignore[attr-defined]
    return run


def _run_plainly(function: Callable[P, R], delays_seconds: Sequence[float], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a step without Prefect, with the same retries."""
    left = list(delays_seconds)
    while True:
        begun = time.monotonic()
        try:
            result = function(*args, **kwargs)
            logger.debug("%s took %.2f s", function.__name__.replace("_", " "), time.monotonic() - begun)
            return result
        except BackupError as error:
            if not is_transient(error) or not left:
                raise
            delay_seconds = left.pop(0) * random.uniform(1, 1 + RETRY_JITTER)
            name = function.__name__.replace("_", " ")
            logger.warning("%s failed, trying again in %.1f s: %s", name, delay_seconds, error.message)
            time.sleep(delay_seconds)
