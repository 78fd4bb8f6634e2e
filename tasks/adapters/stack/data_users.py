"""Find the containers that see an installation's data besides its own PostgreSQL."""

from __future__ import annotations

from tasks.adapters.engine import containers
from tasks.core.stack.data_users import OtherUsers, is_server
from tasks.core.stack.installation import Installation


def other_users(installation: Installation) -> OtherUsers:
    """List who else mounts the data: all containers, through links, volumes for directories, and directories around it."""
    place, own = installation.data_mount, installation.postgres.container_id
    within = [each for each in containers.containers_mounting(place) if each.id != own]
    around = [each for each in containers.containers_around(place) if each.id != own and each not in within]
    servers = [
        each
        for each in around
        if is_server(each.environment, each.image, containers.programs_in(each.id) if each.pid else ())
    ]
    return OtherUsers(
        in_the_way=tuple(each.name for each in (*within, *servers)),
        around=tuple(each.name for each in around if each not in servers),
    )
