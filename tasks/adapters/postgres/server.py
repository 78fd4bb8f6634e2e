"""Where a database server answers, and as whom we log in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tasks.adapters.engine.reach import host_can_reach, relay
from tasks.core.errors import BackupError
from tasks.core.stack.installation import Installation, command_to_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a database server answers, and as whom we log in.

    `major_hint` is the version that its image claims to have, None where it claims none. `superuser` tells whether the login is one's.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    major_hint: int | None = None
    superuser: bool = True


@contextmanager
def server_of(installation: Installation) -> Iterator[Server]:
    """Give the installation's server as its superuser: at the container's address, or through a relay where the host cannot reach it."""
    database = installation.database
    major = major_of_image(installation)
    for address in installation.postgres.addresses:
        if address.startswith("/"):  # a private server's socket directory
            yield Server(address, database.port, database.superuser, database.superuser_password, major)
            return
        if host_can_reach(address, database.port, installation.postgres.container_id):
            yield Server(address, database.port, database.superuser, database.superuser_password, major)
            return
    if installation.postgres.state != "running":
        raise BackupError(
            f"PostgreSQL (service {installation.postgres.name}) is {installation.postgres.state}, not running",
            hint=command_to_run(installation, installation.postgres),
        )
    logger.debug("no address of %s can be reached from here; going through the container", installation.postgres.name)
    with relay(installation.postgres.container_id, database.port) as (host, port):
        yield Server(host, port, database.superuser, database.superuser_password, major)


def major_of_image(installation: Installation) -> int | None:
    """Give the major version that PostgreSQL's image says it holds, as the official ones do; None where it says nothing."""
    said = installation.postgres.environment.get("PG_MAJOR", "")
    return int(said) if said.isdecimal() and len(said) < 4 else None
