"""See that an installation's application may be upgraded, before anything is touched."""

from __future__ import annotations

import os

from tasks.adapters.host.files import free_space
from tasks.adapters.postgres.databases import refuse_prepared_transactions
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session
from tasks.core.errors import Refused
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.core.stack.installation import Installation, command_to_run
from tasks.restore.kept import holdings
from tasks.step import step
from tasks.upgrade.kept_list import kept_upgrades

# The copy itself, and what migrations that write tables anew leave behind.
COPY_FACTOR = 1.3


@step(name="check upgrade")
def check_application_upgrade(stack: Installation) -> tuple[str, ...]:
    """Raise Refused where the application must not be upgraded now; return in words what is to be known of it."""
    for service in (stack.postgres, stack.application):
        if service.state != "running":
            raise Refused(
                f"service {service.name} is {service.state}, not running: nothing would show that the new version works",
                hint=command_to_run(stack, service),
            )
    for parent in {each.parent for each in stack.compose_files}:
        if not os.access(parent, os.W_OK):
            raise Refused(
                f"the compose file in {parent} cannot be changed by user {os.geteuid()}", hint="run it with sudo"
            )
    held = holdings(stack)
    kept = [*(each.database for each in held.databases), *(each.database for each in held.directories)]
    kept += [each.mark.database(stack.database.name) for each in kept_upgrades(stack.directory)]
    if kept:
        raise Refused(
            f"what an earlier restore or upgrade put aside is still kept: {', '.join(sorted(set(kept)))}",
            hint="mailarchiver-backup commit (or rollback) first: there is one way back at a time",
        )
    with server_of(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="check") as opened:
        refuse_prepared_transactions(opened, stack.database.name)
        size = int(opened.value("SELECT pg_database_size(%s)", (stack.database.name,)))
    place = stack.data_mount.host_path
    if place is None:
        return (
            "the disk of the data cannot be seen from here: whether the copy of the database has room is not known",
        )
    free_bytes, free_inodes = free_space(place)
    need = Need("the copy of the database", str(place), int(size * COPY_FACTOR) + MARGIN_BYTES)
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes)
    return ()
