"""The step: a Prefect task that also runs without Prefect, with the same retries (see `tasks/surroundings.py`)."""

from __future__ import annotations

import copy
import functools
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from tasks.core.errors import BackupError
from tasks.core.plain_text import plain_line
from tasks.prefect_objects import NO_CACHE, Task
from tasks.surroundings import surroundings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# Together about a minute, longer than a Docker daemon or a PostgreSQL takes to restart: 2, 4, 8, 16 and 32 s, each up
# to a third longer, so that two runs that failed together do not try again together.
RETRIES = 5
RETRY_DELAY_SECONDS = 2.0
RETRY_JITTER = 0.3


def is_transient(error: BaseException) -> bool:
    """Tell whether waiting could cure it: the one retry policy there is."""
    return isinstance(error, BackupError) and error.transient


async def _retry_if_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    found = await state.aresult(raise_on_failure=False)
    return isinstance(found, BaseException) and is_transient(found)


def _run_name(pattern: str) -> Any:
    """Name a step's run after its parameters, which may have been named by somebody else."""

    def named(parameters: dict[str, Any]) -> str:
        return plain_line(pattern.format(**parameters))

    return named


class Step(Task[P, R]):
    """A task of Prefect's whose call, where no flow run is watching, runs the plain function with the same retries."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
        """Run the step, and give what its function returns."""
        return cast(R, surroundings().run_step(self, *args, **kwargs))

    def with_options(self, **options: Any) -> Step[P, R]:
        """Give the same step with other options, as Prefect's tasks do."""
        changed = copy.copy(self)
        changed.__dict__.update(super().with_options(**options).__dict__)
        return changed

    def run_plainly(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, and again after each transient error while tries are left."""
        delays = self.retry_delay_seconds
        left = list(delays) if isinstance(delays, list) else [float(delays or 0)] * self.retries
        while True:
            begun = time.monotonic()
            try:
                result = self.fn(*args, **kwargs)
                logger.debug("%s took %.2f s", self.name, time.monotonic() - begun)
                return result
            except BackupError as error:
                if not is_transient(error) or not left:
                    raise
                delay_seconds = left.pop(0) * random.uniform(1, 1 + (self.retry_jitter_factor or 0))
                logger.warning("%s failed, trying again in %.1f s: %s", self.name, delay_seconds, error.message)
                time.sleep(delay_seconds)


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    run_name: str | None = None,
    retries: int = RETRIES,
    retry_delay_seconds: float = RETRY_DELAY_SECONDS,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...


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
    name = name or function.__name__.replace("_", " ")
    return Step(
        fn=function,
        name=name,
        # Without one Prefect adds a few random letters to the name.
        task_run_name=_run_name(run_name) if run_name else name,
        retries=retries,
        retry_delay_seconds=delays or None,
        retry_jitter_factor=RETRY_JITTER if delays else None,
        retry_condition_fn=_retry_if_transient,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
