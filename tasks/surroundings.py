"""Who watches a run: Prefect, or the caller alone. The one place that asks; everybody else is handed the answer.

Within a flow run a step is a task of Prefect's, another flow a subflow, and reports become artifacts and events. When a
flow's function is called directly, as the command line does, Prefect's engine would start a server for it (10 s, 250
MB): then all of these are plain functions, and a restore depends on no server.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar

from tasks.core.plain_text import plain_values

if TYPE_CHECKING:
    from prefect import Flow

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Artifact = Literal["markdown", "table"]


class RunsPlainly(Protocol):
    """A task that can do its work without Prefect too."""

    def run_plainly(self, *args: Any, **kwargs: Any) -> Any: ...


class Surroundings:
    """A run that only its caller sees: of the command line, or of a timer."""

    # Its parameters are its caller's own words, and it has its caller's rights.
    takes_paths = True
    has_server = False
    asks_in_prefect = False
    # Nobody else would verify the new backup: the run does it itself.
    verifies_by_event = False

    def run_step(self, step: RunsPlainly, *args: Any, **kwargs: Any) -> Any:
        """Run a step."""
        return step.run_plainly(*args, **kwargs)

    def run_flow(self, flow: Flow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a flow."""
        return flow.fn(*args, **kwargs)

    def scheduled_time(self) -> datetime | None:
        """Give the moment that the scheduler meant this run for; None for a run by hand."""
        return None

    def store(self, kind: Artifact, **artifact: object) -> None:
        """Show an artifact on the run's page."""

    def announce(self, event: str, installation: str, payload: Mapping[str, object]) -> None:
        """Emit an event about an installation, for automations."""


class PrefectRun(Surroundings):
    """A flow run: seen on its page, and open to everybody who reaches Prefect's API."""

    takes_paths = False
    has_server = True
    asks_in_prefect = True
    verifies_by_event = True

    def run_step(self, step: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a step as a task."""
        from prefect import Task

        return Task.__call__(step, *args, **kwargs)

    def run_flow(self, flow: Flow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a flow as a subflow."""
        return flow(*args, **kwargs)

    def scheduled_time(self) -> datetime | None:
        """Give the moment that the scheduler meant this run for; None for a run by hand."""
        from prefect.context import FlowRunContext

        context = FlowRunContext.get()
        run = context.flow_run if context is not None else None
        return run.expected_start_time if run is not None and run.auto_scheduled else None

    def store(self, kind: Artifact, **artifact: object) -> None:
        """Store an artifact; where the server does not take it, that is logged and nothing else happens."""
        from prefect import artifacts

        try:
            getattr(artifacts, f"create_{kind}_artifact")(**plain_values(artifact))
        except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises: the work is done and must not count as failed
            logger.warning("the report could not be stored in Prefect: %s", error)

    def announce(self, event: str, installation: str, payload: Mapping[str, object]) -> None:
        """Emit an event about an installation, for automations."""
        from prefect.events import emit_event

        emit_event(
            event=event,
            resource={
                "prefect.resource.id": f"mailarchiver.installation.{installation}",
                "prefect.resource.name": installation,
            },
            payload=plain_values(payload),
        )


_PLAIN, _PREFECT = Surroundings(), PrefectRun()


def surroundings() -> Surroundings:
    """Tell who watches the run that asks; Prefect can only where it was imported."""
    context = sys.modules.get("prefect.context")
    return _PLAIN if context is None or context.FlowRunContext.get() is None else _PREFECT


def run_flow(flow: Flow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a flow: as a subflow where Prefect watches, else as a plain function."""
    return surroundings().run_flow(flow, *args, **kwargs)
