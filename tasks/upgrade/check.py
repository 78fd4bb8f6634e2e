"""See that an installation may be upgraded to an image, before anything is touched."""

from __future__ import annotations

import os

from tasks.adapters.host.files import free_space
from tasks.adapters.postgres import catalogue
from tasks.adapters.postgres.databases import refuse_prepared_transactions
from tasks.adapters.postgres.facts import database_facts
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import session
from tasks.core.errors import Refused
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.core.stack.compatibility import Platform
from tasks.core.stack.installation import Installation, command_to_run
from tasks.core.stack.upgrade import Cluster, changes_of_platform, refuse_unfit_upgrade
from tasks.restore.check_target import LOADED_FACTOR
from tasks.restore.kept import holdings
from tasks.run.data_users import refuse_other_users
from tasks.step import step
from tasks.upgrade.kept_list import kept_upgrades
from tasks.upgrade.new_image import NewImage
from tasks.upgrade.place import beside_data, data_place


@step(name="check upgrade")
def check_upgrade(stack: Installation, new: NewImage, platform: Platform) -> tuple[str, ...]:
    """Raise Refused where this upgrade must not be; return in words what is to be known of it. `platform` is the current image's."""
    if os.geteuid() != 0:
        raise Refused(
            f"data directories are exchanged by root only; this is user {os.geteuid()}", hint="run it with sudo"
        )
    if stack.postgres.state != "running":
        raise Refused(f"PostgreSQL (service {stack.postgres.name}) is {stack.postgres.state}, not running", hint=command_to_run(stack, stack.postgres))  # fmt: skip
    refuse_other_users(stack)
    place = data_place(stack)
    with server_of(stack) as server:
        with session(server, "postgres", purpose="check") as opened:
            refuse_prepared_transactions(opened, stack.database.name)
            others = catalogue.other_databases(opened, stack.database.name)
            tablespaces = catalogue.outside_tablespaces(opened)
        with session(server, stack.database.name, purpose="check") as opened:
            facts = database_facts(opened)
    refuse_unfit_upgrade(
        Cluster(
            facts.server_major, platform, facts.extensions, tuple(others), tuple(tablespaces), _kept(stack),
            beside_data(stack),
        ),
        new.platform, new.extensions, image=new.name,
    )  # fmt: skip
    free_bytes, free_inodes = free_space(place.parent)
    need = Need("the new data directory", str(place.parent), int(facts.size_bytes * LOADED_FACTOR) + MARGIN_BYTES)
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes)
    return (*changes_of_platform(platform, new.platform), *_moved(stack, new))


def _kept(stack: Installation) -> tuple[str, ...]:
    held = holdings(stack)
    names = [*(each.database for each in held.databases), *(each.database for each in held.directories)]
    place = data_place(stack)
    return (*names, *(str(each.mark.directory(place)) for each in kept_upgrades(stack.directory) if each.data))


def _moved(stack: Installation, new: NewImage) -> tuple[str, ...]:
    if new.layout.target == stack.data_mount.target:
        return ()
    return (
        f"the new image keeps its data in {new.layout.pgdata}: the mount at {stack.data_mount.target} becomes one at {new.layout.target}",
    )
