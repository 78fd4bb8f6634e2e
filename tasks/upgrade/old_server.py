"""The old server of an upgrade: nobody writes from before the last dump until it is stopped, and what the new one is compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.adapters.postgres.catalogue import count_objects, lock_against_writers, settings_in_files
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, session
from tasks.core.stack.installation import Installation

logger = logging.getLogger(__name__)


@contextmanager
def nobody_writes(stack: Installation, *, wait_seconds: float) -> Iterator[None]:
    """Hold every table against writers within the block, no matter who they are; ends with the block, the server or this process."""
    with (
        server_of(stack) as server,
        session(server, stack.database.name, purpose="upgrade", answer_seconds=LONG_ANSWER_SECONDS) as opened,
    ):
        opened.execute("BEGIN")
        held = lock_against_writers(opened, wait_seconds=wait_seconds)
        logger.info("%d tables are held against writers", held)
        yield


def look_at_cluster(stack: Installation) -> tuple[dict[str, int], dict[str, str]]:
    """Count a database's objects, and read the settings of its server's files."""
    with server_of(stack) as server, session(server, stack.database.name, purpose="look") as opened:
        return count_objects(opened), settings_in_files(opened)
