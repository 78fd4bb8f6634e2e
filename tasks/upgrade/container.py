"""PostgreSQL's container: stopped, and made anew by Compose from the files as they are."""

from __future__ import annotations

from tasks.adapters.engine import containers
from tasks.adapters.engine.compose import compose_up
from tasks.adapters.stack.find_stack import find_stack
from tasks.core.stack.installation import Installation, ServiceState

COMPOSE_SECONDS = 300.0
_ALIVE = ("running", "restarting", "paused")


def stop_postgres(stack: Installation) -> None:
    """Stop whatever container PostgreSQL has now."""
    for each in _postgres_containers(stack):
        if each.state in _ALIVE:
            containers.stop_container(each.id, timeout_seconds=stack.limits.postgres_stop_seconds)


def make_container(stack: Installation, was: ServiceState) -> None:
    """Let Compose make PostgreSQL's container anew where the files say another, and start it if it ran before.

    No other service's container is touched.
    """
    found = find_stack(stack.directory, project=stack.project)
    compose_up(
        found.base, found.compose_files, found.project, [stack.postgres.name], timeout_seconds=COMPOSE_SECONDS, no_start=True,
        with_dependencies=False, pull="never", env_files=found.env_files,
    )  # fmt: skip
    if was in _ALIVE:
        for each in _postgres_containers(stack):
            containers.start_container(each.id)


def _postgres_containers(stack: Installation) -> list[containers.Container]:
    found = find_stack(stack.directory, project=stack.project)
    return list(found.containers.get(stack.postgres.name, ()))
