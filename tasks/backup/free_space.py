"""The step that asks whether there is room, before anything starts."""

from __future__ import annotations

import logging
from pathlib import Path

from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.host.files import free_space
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import session
from tasks.core.errors import BackupError
from tasks.core.policy.copy_plan import CopyPlan, CopyWay, plan_copy
from tasks.core.policy.space import MARGIN_BYTES, Need, dump_archive_bytes, require_room
from tasks.core.stack.installation import Installation
from tasks.step import step

logger = logging.getLogger(__name__)

WAL_BYTES = 64 << 20


@step(name="require room")
def require_room_for_dump(installation: Installation, repository: Path, minimum_free_bytes: int) -> int:
    """Raise Refused unless the repository has room for a dump of the database as it is now; return the bytes it may need.

    So too where it is not the repository that backups went to before: the room would be that of another disk.
    """
    require_repository(repository)
    with (
        server_of(installation) as server,
        session(server, installation.database.name, purpose="look", settings={"lock_timeout": "2s"}) as opened,
    ):
        try:
            table_bytes = int(
                opened.value(
                    "SELECT coalesce(sum(pg_table_size(oid)), 0) FROM pg_class WHERE relkind IN ('r', 'm') AND relpersistence <> 't'"
                )
            )
        except (
            BackupError
        ):  # a table is locked: the whole database with its indexes is an upper bound that asks for no lock
            table_bytes = int(opened.value("SELECT pg_database_size(current_database())"))
    files = sum(file.path.stat().st_size for file in installation.config_files if file.path.exists())
    need = Need("the archive", str(repository), dump_archive_bytes(table_bytes, files))
    free_bytes, free_inodes = free_space(repository)
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes, minimum_free_bytes=minimum_free_bytes)
    logger.info("The archive needs up to %d bytes; %d are free in %s", need.bytes, free_bytes, repository)
    return need.bytes


@step(name="require room")
def require_room_for_data(
    installation: Installation,
    repository: Path,
    data_bytes: int,
    minimum_free_bytes: int,
    *,
    way: CopyWay | None = None,
) -> CopyPlan:
    """Raise Refused unless the repository has room for the archive of a data directory; return how it is best copied.

    So too where it is not the repository that backups went to before: the room would be that of another disk.
    """
    require_repository(repository)
    files = sum(file.path.stat().st_size for file in installation.config_files if file.path.exists())
    need = Need("the archive", str(repository), data_bytes + files + WAL_BYTES + MARGIN_BYTES)
    free_bytes, free_inodes = free_space(repository)
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes, minimum_free_bytes=minimum_free_bytes)
    plan = plan_copy(data_bytes, free_bytes=free_bytes - minimum_free_bytes, archive_bytes=need.bytes, asked=way)
    logger.info("Plan: %s, since %s", plan.way, plan.reason)
    return plan
