"""At which addresses an installation's application is published on this machine."""

from __future__ import annotations

from pathlib import Path

from tasks.adapters.engine import containers
from tasks.adapters.stack.discovery import discover
from tasks.core.errors import BackupError
from tasks.core.policy.own_addresses import asked_at


def application_addresses(directory: Path) -> tuple[str, ...]:
    """Give the addresses for a browser on this machine; none where the application is not published, or cannot be looked at."""
    try:
        found = discover(directory)
        container = containers.container(found.application.container_id)
    except BackupError:
        return ()
    ports = container.published_ports if container is not None else ()
    served = [each for each in ports if each.container_port == found.application_port]
    return tuple(dict.fromkeys(f"http://{asked_at(each.host_address)}:{each.host_port}" for each in served))
