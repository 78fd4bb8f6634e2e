"""The last dump under the old version: nobody writes from before it until the old server is stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tasks.adapters.postgres.catalogue import count_objects, lock_against_writers, settings_in_files
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, session
from tasks.backup.archive import copy_configuration, copy_keys, new_archive, seal_backup
from tasks.backup.dump import dump_database
from tasks.core.archive.manifest import Record
from tasks.core.stack.installation import Installation
from tasks.run.config import InstallationConfig

logger = logging.getLogger(__name__)


@contextmanager
def nobody_writes(stack: Installation, *, wait_seconds: float) -> Iterator[None]:
    """Hold every table against writers within the block, whoever they are; ends with the block, the server or this process."""
    with (
        server_of(stack) as server,
        session(server, stack.database.name, purpose="upgrade", answer_seconds=LONG_ANSWER_SECONDS) as opened,
    ):
        opened.execute("BEGIN")
        held = lock_against_writers(opened, wait_seconds=wait_seconds)
        logger.info("%d tables are held against writers", held)
        yield


def final_dump(config: InstallationConfig, stack: Installation) -> Record:
    """Take a backup of this moment, as a hot backup does: it stays in the repository, whatever comes of the upgrade."""
    begun = time.monotonic()
    with new_archive(config, config.settings.format, datetime.now(UTC)) as archive:
        dumped = dump_database(stack, archive, config.dump_limits)
        lacking = copy_keys(stack, archive)
        copy_configuration(stack, archive)
        return seal_backup(
            stack, archive, method="hot", at=dumped.at, facts=dumped.facts, census=dumped.census, no_census=dumped.no_census,
            warnings=lacking, begun=begun,
        )  # fmt: skip


def look_at_cluster(stack: Installation) -> tuple[dict[str, int], dict[str, str]]:
    """Count a database's objects, and read the settings of its server's files."""
    with server_of(stack) as server, session(server, stack.database.name, purpose="look") as opened:
        return count_objects(opened), settings_in_files(opened)
