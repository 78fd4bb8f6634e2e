"""Put the proven replacement in the place of the current data, keep the current, and bring it back on request.

Two renames in one transaction swap the databases; that commit is the moment at which the new replaces the old. The keys follow by
rename. A journal, written before, lets the next run after a crash go the rest of the way, or find that nothing had begun: that is
decided from the databases that are there, known by their numbers, which no rename changes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.adapters.engine import containers
from tasks.adapters.host.files import remove_tree
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.facts import database_comment
from tasks.adapters.postgres.session import Server, Session, server_of, session, wait_until_ready
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.installation import Installation
from tasks.restore.database_beside import MAINTENANCE_DATABASE, Replacement
from tasks.restore.directory_swap import exchange
from tasks.run.installations import installation_of
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "swap"
DROP_KIND = "drop"
KEPT = "mailarchiver-backup kept "
POSTGRES_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A database that a restore (or a rollback) put aside, as its comment tells; `commit` drops it, `rollback` brings it back.

    `undone` marks what a rollback put aside. `keys` is where its keys were put, "" where they were not swapped.
    """

    database: str
    of: str
    at: str
    backup: str
    keys: str
    current_keys: str
    comment: str | None
    undone: bool = False


@step(name="swap databases and keys", retries=0)
def swap_in(installation: Installation, new: Replacement, *, backup: str, comment: str | None) -> Kept:
    """Swap the replacement in and return what was kept. The application must be stopped.

    Killed at any point, the data is the old or the new; `recover` completes a swap whose databases were swapped already.
    """
    kept = Kept(
        database=new.aside,
        of=new.current,
        at=datetime.now(UTC).isoformat(timespec="microseconds"),
        backup=backup,
        keys=str(new.keys_aside) if new.keys and new.keys_aside else "",
        current_keys=str(new.current_keys) if new.keys else "",
        comment=None,
    )
    return _swap(installation, new.database, str(new.keys or ""), kept, comment)


@step(name="swap back", retries=0)
def swap_back(installation: Installation, kept: Kept, *, now: datetime) -> Kept:
    """Put what was kept back in its place; what a restore had brought is kept in turn, marked as undone."""
    stamp = f"{now.astimezone(UTC):%Y%m%d_%H%M%S}"
    current_keys = Path(kept.current_keys) if kept.current_keys else None
    undone = Kept(
        database=databases.beside_name(kept.of, f"undone_{stamp}"),
        of=kept.of,
        at=now.astimezone(UTC).isoformat(timespec="microseconds"),
        backup=kept.backup,
        keys=str(current_keys.with_name(f"{current_keys.name}.undone-{stamp}")) if current_keys else "",
        current_keys=kept.current_keys,
        comment=None,
        undone=True,
    )
    return _swap(installation, kept.database, kept.keys, undone, kept.comment)


def kept_databases(installation: Installation) -> list[Kept]:
    """List what restores of this installation have put aside, oldest first."""
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
        comments = databases.databases_commented(opened, KEPT)
    read = (_kept_in(name, text) for name, text in comments.items())
    found = [kept for kept in read if kept is not None and kept.of == installation.database.name]
    return sorted(found, key=lambda kept: kept.at)


def _kept_in(database: str, comment: str) -> Kept | None:
    try:
        kept = Kept(**{**json.loads(comment.removeprefix(KEPT)), "database": database})
        datetime.fromisoformat(kept.at)
    except (TypeError, ValueError) as error:
        logger.warning("The comment of database %s is not one of ours, and is passed over: %s", database, error)
        return None
    return kept


@step(name="check swap")
def check_swap(installation: Installation, incoming: str | None = None) -> tuple[str, ...]:
    """Raise Refused, before anything is stopped, where PostgreSQL would not let the current database (and `incoming`) be renamed.

    Return in words what takes part in logical replication, which goes on with the database that is put aside.
    """
    current = installation.database.name
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
        if incoming is None:
            databases.refuse_prepared_transactions(opened, current)
        else:
            databases.refuse_to_swap(opened, current=current, replacement=incoming)
        found = databases.replication_of(opened, current)
    return tuple(f"{each} stays with the database that is put aside" for each in found)


@step(name="check commit")
def check_drop(installation: Installation, kept: Kept) -> None:
    """Raise Refused, with nothing changed, where PostgreSQL would not drop what was kept."""
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
        databases.refuse_to_drop(opened, kept.database)


@step(name="drop kept data", retries=0)
def drop_kept(installation: Installation, kept: Kept) -> None:
    """Drop what was put aside, the database first, then its keys; safe to repeat. Where PostgreSQL refuses, nothing has changed.

    A journal lets `recover` remove the keys of a database that is gone already.
    """
    if kept.database == installation.database.name or not kept.database:
        raise Refused(f"{kept.database!r} is the database in use and is not dropped")
    keys = kept.keys if kept.keys != kept.current_keys else ""
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="commit") as opened:
        entry = databases.database_entry(opened, kept.database)
        body = {"database": kept.database, "number": entry.number if entry else 0, "keys": keys}
        journal = open_journal(
            DROP_KIND, body, installation_id=installation.id, installation_directory=installation.directory
        )
        try:
            try:
                databases.drop_database(opened, kept.database)
            except Refused:
                journal.remove()
                raise
            if keys:
                remove_tree(Path(keys))
            journal.remove()
        finally:
            journal.abandon()


def settle_drop(journal: Journal) -> str:
    """Complete the dropping of kept data whose database is gone, or half gone; where it is whole, nothing had begun."""
    name, number, keys = str(journal.body["database"]), int(journal.body["number"]), str(journal.body["keys"])
    with _server_for(journal) as server, session(server, MAINTENANCE_DATABASE, purpose="recover") as opened:
        entry = databases.database_numbered(opened, number)
        if entry is not None and not entry.is_broken:
            return f"the commit had not begun: {entry.name} is still kept"
        if entry is not None:
            databases.drop_database(opened, entry.name)
    if keys:
        remove_tree(Path(keys))
    return f"completed the commit: {name} is dropped"


def _swap(installation: Installation, incoming: str, incoming_keys: str, kept: Kept, comment: str | None) -> Kept:
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="swap") as opened:
        databases.refuse_to_swap(opened, current=kept.of, replacement=incoming)
        if incoming_keys and not Path(incoming_keys).exists():
            raise Refused(
                f"{incoming_keys} is gone: the keys that belong to database {incoming} cannot be put in place"
            )
        entry = databases.database_entry(opened, incoming)
        body = {
            "incoming": incoming,
            "incoming_keys": incoming_keys,
            "kept": asdict(kept),
            "comment": comment,
            "number": entry.number if entry else 0,
        }
        kept = Kept(**{**asdict(kept), "comment": database_comment(opened, kept.of)})
    journal = open_journal(KIND, body, installation_id=installation.id, installation_directory=installation.directory)
    try:
        try:
            with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="swap") as opened:
                _swap_databases(opened, incoming, kept, comment)
        except BackupError:
            # Whether PostgreSQL had done it when it, or the way to it, failed, only the databases tell.
            if not _is_swapped(installation, body):
                journal.remove()
                raise
        try:
            swap_keys(incoming_keys, kept)
        except BackupError:
            _take_databases_back(installation, incoming, kept)
            journal.remove()
            raise
        journal.remove()
    finally:
        journal.abandon()
    return kept


def _is_swapped(installation: Installation, body: Mapping[str, Any]) -> bool:
    """Tell whether the database that was to come bears the current one's name."""
    with server_of(installation) as server:
        wait_until_ready(server, MAINTENANCE_DATABASE, timeout_seconds=POSTGRES_START_SECONDS)
        with session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
            entry = databases.database_numbered(opened, int(body["number"]))
    return entry is not None and entry.name == str(body["kept"]["of"])


def _take_databases_back(installation: Installation, incoming: str, kept: Kept) -> None:
    """Undo the renames where the keys could not follow: database and keys belong together."""
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="swap") as opened:
        if databases.database_exists(opened, kept.database):
            databases.swap_databases(
                opened, current=kept.of, replacement=kept.database, aside=incoming, comments={kept.of: kept.comment}
            )


def settle(journal: Journal) -> str:
    """Complete a swap whose databases had been swapped; else say that nothing had begun."""
    kept = Kept(**journal.body["kept"])
    incoming, keys = str(journal.body["incoming"]), str(journal.body["incoming_keys"])
    with _server_for(journal) as server, session(server, MAINTENANCE_DATABASE, purpose="recover") as opened:
        if not _had_swapped(opened, journal.body, incoming, kept):
            return "the swap had not begun; the data is as it was"
        kept_name = kept.database if databases.database_exists(opened, kept.database) else None
    swap_keys(keys, kept)
    return "completed the swap; " + (
        f"the former data is kept as {kept_name}" if kept_name else "no former database is kept"
    )


def _had_swapped(opened: Session, body: Mapping[str, Any], incoming: str, kept: Kept) -> bool:
    if number := int(body.get("number") or 0):
        entry = databases.database_numbered(opened, number)
        return entry is not None and entry.name == kept.of
    # A journal of before numbers were written down: names have to do.
    return databases.database_exists(opened, kept.database) and not databases.database_exists(opened, incoming)


@contextmanager
def _server_for(journal: Journal) -> Iterator[Server]:
    """Give the server of a journal's installation, started where it was stopped, once it answers."""
    containers.start_container(installation_of(journal).postgres.container_id)
    with server_of(installation_of(journal)) as server:
        wait_until_ready(server, MAINTENANCE_DATABASE, timeout_seconds=POSTGRES_START_SECONDS)
        yield server


def _swap_databases(opened: Session, incoming: str, kept: Kept, comment: str | None) -> None:
    told = {name: value for name, value in asdict(kept).items() if name != "database"}
    databases.swap_databases(
        opened,
        current=kept.of,
        replacement=incoming,
        aside=kept.database,
        comments={kept.database: KEPT + json.dumps(told), kept.of: comment},
    )


def swap_keys(incoming: str, kept: Kept) -> None:
    """Rename the current keys aside and the incoming ones into their place; whatever of that is done already is left."""
    if incoming and kept.current_keys:
        exchange(Path(kept.current_keys), Path(incoming), Path(kept.keys))
