"""See that an archive may be restored into an installation, before anything is touched."""

from __future__ import annotations

from tasks.adapters.archive.reader import (
    Archive,
)
from tasks.adapters.host.files import free_space
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.facts import migration_head, server_major
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session, wait_until_ready
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.core.stack.compatibility import refuse_unfit_dump
from tasks.core.stack.installation import Installation
from tasks.step import step

# The load leaves WAL behind besides the tables and indexes.
LOADED_FACTOR = 1.3


@step(name="check target")
def check_target(installation: Installation, archive: Archive) -> None:
    """Raise Refused where this archive may not be restored here; touch nothing."""
    manifest = archive.manifest
    _require_room(installation, archive)
    with server_of(installation) as server:
        wait_until_ready(server, MAINTENANCE_DATABASE, timeout_seconds=60)
        with session(server, MAINTENANCE_DATABASE, purpose="check") as opened:
            major = server_major(opened)
            exists = databases.database_exists(opened, installation.database.name)
        head = None
        if exists:
            with session(server, installation.database.name, purpose="check") as opened:
                head = migration_head(opened)
    refuse_unfit_dump(
        manifest,
        target_major=major,
        target_migration_head=head,
        same_application=manifest is not None
        and bool(manifest.images)
        and manifest.images[0].image_id == installation.application.image_id,
    )


def _require_room(installation: Installation, archive: Archive) -> None:
    """Raise Refused where the loaded database would not fit beside the current one, as far as the host can see its disk."""
    place = installation.data_mount.host_path
    if place is None or archive.manifest is None:
        return
    need = Need(
        "the restored database", str(place), int(archive.manifest.database.size_bytes * LOADED_FACTOR) + MARGIN_BYTES
    )
    free_bytes, free_inodes = free_space(place)
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes)
