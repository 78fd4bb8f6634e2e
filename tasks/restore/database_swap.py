"""Put the proven replacement in the place of the current data, keep the current, and bring it back on request.

Two renames in one transaction swap the databases; that commit is the moment at which the new replaces the old. The keys follow by
rename. A journal, written before, lets the next run after a crash go the rest of the way, or find that nothing had begun: that is
decided from the databases that are there, known by their numbers, which no rename changes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.own_directories import Identity, exists, identity_of, require_absent, require_same
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.facts import database_comment
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, Session, session, wait_until_ready
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.beside import Mark, mark_of_database, stamp_of
from tasks.core.stack.installation import Installation
from tasks.restore.database_beside import Replacement
from tasks.restore.exchange import exchange
from tasks.restore.kept_database import KEPT, POSTGRES_START_SECONDS, Kept, require_computed, require_number, server_for
from tasks.restore.kept_list import Entry, remove_entry, write_entry
from tasks.run.installations import installation_of
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "swap"
_TOLD = ("of", "at", "backup", "keys", "current_keys", "comment", "undone")


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
    mark = Mark("undone", stamp_of(now))
    undone = Kept(
        database=mark.database(kept.of),
        of=kept.of,
        at=now.astimezone(UTC).isoformat(timespec="microseconds"),
        backup=kept.backup,
        keys=str(mark.directory(Path(kept.current_keys))) if kept.current_keys else "",
        current_keys=kept.current_keys,
        comment=None,
        undone=True,
    )
    return _swap(installation, kept.database, kept.keys, undone, kept.comment, replaced=kept)


@step(name="check swap")
def check_swap(installation: Installation, incoming: str | None = None, kept: Kept | None = None) -> tuple[str, ...]:
    """Raise Refused, before anything is stopped, where PostgreSQL would not let the current database (and `incoming`) be renamed.

    With `kept`, which is to come back, also where something else bears its name or its keys'.

    Return in words what takes part in logical replication, which goes on with the database that is put aside.
    """
    current = installation.database.name
    if kept is not None and kept.keys:
        require_same(Path(kept.keys), kept.keys_identity)
    if (place := installation.keys_directory) is not None and exists(place):
        identity_of(place)
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
        if kept is not None:
            require_number(opened, kept)
        if incoming is None:
            databases.refuse_prepared_transactions(opened, current)
        else:
            databases.refuse_to_swap(opened, current=current, replacement=incoming)
        found = databases.replication_of(opened, current)
    return tuple(f"{each} stays with the database that is put aside" for each in found)


def _swap(
    installation: Installation,
    incoming: str,
    incoming_keys: str,
    kept: Kept,
    comment: str | None,
    *,
    replaced: Kept | None = None,
) -> Kept:
    require_computed(installation, kept, incoming, incoming_keys)
    kept, body = _look_before_swap(installation, incoming, incoming_keys, kept, comment, replaced)
    journal = open_journal(KIND, body, installation_id=installation.id, installation_directory=installation.directory)
    try:
        try:
            write_kept(installation, kept)
            with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="swap") as opened:
                _swap_databases(opened, incoming, kept, comment)
        except BackupError:
            # Whether PostgreSQL had done it when it, or the way to it, failed, only the databases tell.
            if not _is_swapped(installation, body):
                remove_entry(installation.directory, "database", kept.mark)
                journal.remove()
                raise
        try:
            swap_keys(incoming_keys, kept, Identity.read(body["incoming_keys_identity"]))
        except BackupError:
            _take_databases_back(installation, incoming, kept)
            remove_entry(installation.directory, "database", kept.mark)
            journal.remove()
            raise
        _strike_out(installation, incoming)
        journal.remove()
    finally:
        journal.abandon()
    return kept


def _look_before_swap(
    installation: Installation,
    incoming: str,
    incoming_keys: str,
    kept: Kept,
    comment: str | None,
    replaced: Kept | None,
) -> tuple[Kept, dict[str, Any]]:
    """Return what is to be kept, known by numbers, and the journal's body; raise Refused where something is not what it was."""
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="swap") as opened:
        databases.refuse_to_swap(opened, current=kept.of, replacement=incoming)
        if replaced is not None:
            require_number(opened, replaced)
        entry = databases.database_entry(opened, incoming)
        current = databases.database_entry(opened, kept.of)
        former_comment = database_comment(opened, kept.of)
    if incoming_keys and not exists(Path(incoming_keys)):
        raise Refused(f"{incoming_keys} is gone: the keys that belong to database {incoming} cannot be put in place")
    incoming_identity = (
        require_same(Path(incoming_keys), replaced.keys_identity if replaced else None) if incoming_keys else None
    )
    if kept.keys:
        require_absent([Path(kept.keys)])
    has_keys = bool(kept.current_keys) and exists(Path(kept.current_keys))
    kept = replace(
        kept,
        number=current.number if current else 0,
        comment=former_comment,
        keys_identity=identity_of(Path(kept.current_keys)) if has_keys else None,
    )
    body = {
        "project": installation.project,
        "incoming": incoming,
        "incoming_keys": incoming_keys,
        "incoming_keys_identity": asdict(incoming_identity) if incoming_identity else None,
        "kept": asdict(kept),
        "comment": comment,
        "number": entry.number if entry else 0,
    }
    return kept, body


def write_kept(installation: Installation, kept: Kept) -> None:
    """Add a database to the list of what is kept; where there was none, there is nothing to list."""
    if not kept.number:
        return
    entry = Entry(
        "database", kept.mark, kept.at, kept.backup, number=kept.number, comment=kept.comment, keys=kept.keys_identity
    )
    write_entry(installation.directory, entry)


def _strike_out(installation: Installation, incoming: str) -> None:
    """Strike out of the list what was brought back: it is no longer kept."""
    mark = mark_of_database(incoming, installation.database.name)
    if mark is not None:
        remove_entry(installation.directory, "database", mark)


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
    """Complete a swap whose databases had been swapped; else say that nothing had begun. The list of what is kept is right afterwards."""
    installation = installation_of(journal)
    kept = _read_kept(journal.body["kept"])
    incoming, keys = str(journal.body["incoming"]), str(journal.body["incoming_keys"])
    require_computed(installation, kept, incoming, keys)
    with server_for(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="recover") as opened:
        if not _had_swapped(opened, journal.body, incoming, kept):
            remove_entry(installation.directory, "database", kept.mark)
            return "the swap had not begun; the data is as it was"
        aside = databases.database_entry(opened, kept.database)
        if aside is not None and kept.number:
            require_number(opened, kept)
    swap_keys(keys, kept, Identity.read(journal.body.get("incoming_keys_identity")))
    if aside is None:
        remove_entry(installation.directory, "database", kept.mark)
    else:
        found = identity_of(Path(kept.keys)) if kept.keys and exists(Path(kept.keys)) else None
        write_kept(installation, replace(kept, number=aside.number, keys_identity=kept.keys_identity or found))
    _strike_out(installation, incoming)
    return "completed the swap; " + (
        f"the former data is kept as {kept.database}" if aside is not None else "no former database is kept"
    )


def _read_kept(value: Mapping[str, Any]) -> Kept:
    return Kept(**{**value, "keys_identity": Identity.read(value.get("keys_identity"))})


def _had_swapped(opened: Session, body: Mapping[str, Any], incoming: str, kept: Kept) -> bool:
    if number := int(body.get("number") or 0):
        entry = databases.database_numbered(opened, number)
        return entry is not None and entry.name == kept.of
    # A journal of before numbers were written down: names have to do.
    return databases.database_exists(opened, kept.database) and not databases.database_exists(opened, incoming)


def _swap_databases(opened: Session, incoming: str, kept: Kept, comment: str | None) -> None:
    # For people, and for a program that has lost its list: nothing is done because a comment says so.
    told = {name: value for name, value in asdict(kept).items() if name in _TOLD}
    databases.swap_databases(
        opened,
        current=kept.of,
        replacement=incoming,
        aside=kept.database,
        comments={kept.database: KEPT + json.dumps(told), kept.of: comment},
    )


def swap_keys(incoming: str, kept: Kept, identity: Identity | None) -> None:
    """Rename the current keys aside and the incoming ones into their place; whatever of that is done already is left."""
    if incoming and kept.current_keys:
        exchange(
            Path(kept.current_keys),
            Path(incoming),
            Path(kept.keys),
            incoming_is=identity,
            current_is=kept.keys_identity,
        )
