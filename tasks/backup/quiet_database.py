"""The step that waits for the database to be quiet: a dump behind a VACUUM FULL or a migration would hang, or block the application."""

from __future__ import annotations

import logging
import time

from tasks.adapters.postgres.databases import exclusive_work_in_progress
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import session
from tasks.core.errors import BackupError
from tasks.core.stack.installation import Installation
from tasks.core.units import duration_text
from tasks.step import step

logger = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 5.0


@step(name="wait for quiet database", retries=0)
def wait_for_quiet_database(installation: Installation, defer_seconds: float) -> float:
    """Wait until nobody rewrites or locks whole tables; return how long that took.

    Raise BackupError, having touched nothing, where it takes longer than `defer_seconds`. Where PostgreSQL does not run
    there is nothing to wait for.
    """
    begun = time.monotonic()
    if installation.postgres.state != "running":
        return 0.0
    while True:
        with server_of(installation) as server, session(server, installation.database.name, purpose="look") as opened:
            busy = exclusive_work_in_progress(opened)
        waited = time.monotonic() - begun
        if not busy:
            return round(waited, 3)
        if waited >= defer_seconds:
            raise BackupError(
                f"the database was not quiet within {duration_text(defer_seconds)}: {'; '.join(busy)}",
                hint="let it end, or end it; timeouts.defer_seconds in the settings is how long a backup waits",
            )
        logger.info("Waiting for a quiet database: %s", "; ".join(busy))
        time.sleep(min(LOOK_EVERY_SECONDS, max(0.2, defer_seconds - waited)))
