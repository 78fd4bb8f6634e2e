"""What the automated backup asks and tells around its work: is it still wanted, who verifies, and the health check's pings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tasks.adapters.outbox.notifications import send_ping
from tasks.core.archive.manifest import Record
from tasks.core.errors import Busy
from tasks.core.policy.chains import synthetic_is_due
from tasks.core.policy.due import already_done, verification_due
from tasks.oversight.status import raise_alarms, read_status
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import own_records
from tasks.step import step
from tasks.surroundings import surroundings

logger = logging.getLogger(__name__)


@contextmanager
def pinged(config: InstallationConfig) -> Iterator[None]:
    """Ping the health checks at the start and at the end of the block, with what went wrong.

    Each start gets its end: where another run holds the lock, the ping says that this one made no backup, and who is at work.
    """
    send_ping(config.settings.notifications, "start")
    try:
        yield
    except Busy as busy:
        send_ping(config.settings.notifications, "fail", f"no backup was made, another run is at work: {busy.message}")
        raise
    except BaseException as error:
        send_ping(config.settings.notifications, "fail", f"{type(error).__name__}: {error}")
        raise
    send_ping(config.settings.notifications, "success")


@step(name="ask whether backup is wanted")
def superseding_backup(config: InstallationConfig, method: str, scheduled_at: datetime | None) -> Record | None:
    """Find the later backup that supersedes this scheduled run; None where a backup is wanted."""
    found = already_done(own_records(config, now=datetime.now(UTC)), method, scheduled_at)
    if found is not None:
        logger.info("No backup: %s is newer than %s, for which this run was scheduled", found.file, scheduled_at)
    return found


@step(name="ask whether a synthetic full is due")
def synthetic_is_wanted(config: InstallationConfig) -> bool:
    """Tell whether the chain that the newest backup ends is to be put together now."""
    now = datetime.now(UTC)
    if why := synthetic_is_due(own_records(config, now=now), config.chain_rules, now=now):
        logger.info("The chain is put together to a full backup: %s", why)
    return bool(why)


def verification_is_ours(config: InstallationConfig) -> bool:
    """Tell whether the caller is to verify the new backup itself; in Prefect its event has asked for a run of its own."""
    return not surroundings().verifies_by_event and verification_due(
        own_records(config, now=datetime.now(UTC)), config.settings.verification
    )


def copies_are_ours(config: InstallationConfig) -> bool:
    """Tell whether the caller is to copy the new backup itself; in Prefect its event has asked for a run of its own."""
    return not surroundings().verifies_by_event and bool(config.settings.copies)


def tell_overdue(config: InstallationConfig) -> None:
    """Raise the alarm where backups are overdue before this run begins: after a pause it is the first that can tell of it."""
    status = read_status(config, now=datetime.now(UTC))
    if status.newest is not None:
        raise_alarms(config, status, only="overdue")
