"""Look at a stack itself, once no journal is left: mend what no journal tells of, and name what only its operator can decide."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.adapters.host.locks import installation_lock
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, Session, session, wait_until_ready
from tasks.adapters.stack.discovery import discover
from tasks.core.errors import BackupError, Busy
from tasks.core.quoting import quoted
from tasks.core.stack.installation import Installation, Service, command_to_run
from tasks.restore.database_beside import COMMENT
from tasks.restore.kept import listed_databases
from tasks.run.config import InstallationConfig

logger = logging.getLogger(__name__)

READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a stack that is not as it should be. `mended` tells whether that is over; else the text says what to do."""

    text: str
    mended: bool


def look_at_stack(config: InstallationConfig) -> list[Finding]:
    """Look whether a stack could serve its mail: its directories, database and containers; mend a database that takes no connections.

    Nothing is started, and a stack that another run is working on is left alone. Raise nothing: what cannot be seen is a finding.
    """
    try:
        with installation_lock(config.directory, "recovery", passing=True):
            return list(_findings(discover(config.directory, installation_id=config.id, project=config.project)))
    except Busy as busy:
        logger.info("Left to the run in progress: %s", busy.message)
        return []
    except BackupError as error:
        return [Finding(f"the stack cannot be looked at: {error}", False)]


def _findings(installation: Installation) -> Iterator[Finding]:
    yield from _missing_directories(installation)
    if installation.postgres.state != "running":
        yield _not_running(installation, "PostgreSQL", installation.postgres)
        return
    with server_of(installation) as server:
        wait_until_ready(server, MAINTENANCE_DATABASE, timeout_seconds=READY_SECONDS)
        with session(server, MAINTENANCE_DATABASE, purpose="recover") as opened:
            yield from _database(opened, installation)
    if installation.application.state not in ("running", "paused"):
        yield _not_running(installation, "the application", installation.application)


def _not_running(installation: Installation, what: str, service: Service) -> Finding:
    """Say that a service does not run, and how to start it: its operator may have stopped it."""
    start = command_to_run(installation, service)
    return Finding(f"{what} (service {service.name}) is {service.state}; to start it: {start}", True)


def _database(opened: Session, installation: Installation) -> Iterator[Finding]:
    name = installation.database.name
    entry = databases.database_entry(opened, name)
    if entry is None:
        listed = listed_databases(installation).items()
        kept = sorted(kept for number, kept in listed if databases.database_numbered(opened, number) is not None)
        way = "mailarchiver-backup rollback" if kept else "mailarchiver-backup restore"
        also = f"; restores have put aside: {', '.join(kept)}" if kept else ""
        yield Finding(f"there is no database {name}{also}; to get it back: {way}", False)
    elif entry.is_broken:
        yield Finding(
            f"database {name} was being dropped when that was broken off: nobody can use it any more;"
            f" DROP DATABASE {quoted(name)}, then: mailarchiver-backup restore",
            False,
        )
    elif not entry.takes_connections:
        opened.execute(f"ALTER DATABASE {quoted(name)} ALLOW_CONNECTIONS true")
        yield Finding(f"database {name} took no connections; it takes them again", True)
    for left in sorted(databases.databases_commented(opened, COMMENT)):
        yield Finding(
            f"database {left} is what an unfinished restore left; it takes up room: DROP DATABASE {quoted(left)}", True
        )


def _missing_directories(installation: Installation) -> Iterator[Finding]:
    """Name a data or keys directory that is gone while one that was put aside, or was to come, lies beside its place."""
    keys = installation.keys_mount.host_path if installation.keys_mount is not None else None
    for what, place in (("data", installation.data_directory), ("keys", keys)):
        if place is None or os.path.lexists(place) or not os.access(place.parent, os.R_OK | os.X_OK):
            continue
        beside = sorted(
            path.name
            for word in ("before", "undone", "restored")
            for path in place.parent.glob(f"{place.name}.{word}-*")
            if path.is_dir()
        )
        also = f"; beside it lie {', '.join(beside)}: rename the right one to {place.name}" if beside else ""
        yield Finding(f"the {what} directory {place} is gone{also}", False)
