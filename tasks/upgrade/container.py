"""A service's container: stopped, and made anew by Compose from the files as they are."""

from __future__ import annotations

from tasks.adapters.engine import containers
from tasks.adapters.engine.compose import compose_up
from tasks.adapters.engine.labels import ONE_OFF_LABEL, PROJECT_LABEL, SERVICE_LABEL
from tasks.adapters.stack.find_stack import find_stack
from tasks.core.stack.installation import Installation, Service, ServiceState

COMPOSE_SECONDS = 300.0
APPLICATION_STOP_SECONDS = 30
_ALIVE = ("running", "restarting", "paused")


def stop_service(stack: Installation, service: Service) -> None:
    """Stop whatever container a service has now."""
    is_postgres = service.name == stack.postgres.name
    seconds = stack.limits.postgres_stop_seconds if is_postgres else APPLICATION_STOP_SECONDS
    for each in _containers(stack, service):
        if each.state in _ALIVE:
            containers.stop_container(each.id, timeout_seconds=seconds)


def make_container(stack: Installation, service: Service, was: ServiceState) -> None:
    """Let Compose make a service's container anew where the files say another, and start it if it ran before.

    No other service's container is touched.
    """
    found = find_stack(stack.directory, project=stack.project)
    compose_up(
        found.base, found.compose_files, found.project, [service.name], timeout_seconds=COMPOSE_SECONDS, no_start=True,
        with_dependencies=False, pull="never", env_files=found.env_files,
    )  # fmt: skip
    if was in _ALIVE:
        for each in _containers(stack, service):
            containers.start_container(each.id)


def _containers(stack: Installation, service: Service) -> list[containers.Container]:
    """List a service's containers by Docker's labels alone: asking Compose takes half a second of the downtime each time."""
    found = containers.containers(label={PROJECT_LABEL: stack.project, SERVICE_LABEL: service.name})
    return [each for each in found if each.labels.get(ONE_OFF_LABEL, "False") != "True"]
