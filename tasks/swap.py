"""Put the proven replacement in the place of the current data, keep the current, and bring it back on request.

Two renames in one transaction swap the databases; that commit is the moment at which the new replaces the old. The keys follow by
rename. A journal, written before, lets whoever comes after a crash go the rest of the way, or find that nothing had begun.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters import databases, docker_engine
from tasks.adapters.files import remove_tree
from tasks.adapters.journals import Journal, open_journal
from tasks.adapters.postgres import Session, server_of, session, wait_until_ready
from tasks.core.errors import Refused
from tasks.core.installation import Installation
from tasks.directory_swap import exchange
from tasks.installations import installation_of
from tasks.replacement import MAINTENANCE_DATABASE, Replacement
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "swap"
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
    found = [Kept(**{**json.loads(text.removeprefix(KEPT)), "database": name}) for name, text in comments.items()]
    return sorted((kept for kept in found if kept.of == installation.database.name), key=lambda kept: kept.at)


@step(name="drop kept data")
def drop_kept(installation: Installation, kept: Kept) -> None:
    """Drop what was put aside, its keys first; safe to repeat."""
    if kept.database == installation.database.name or not kept.database:
        raise Refused(f"{kept.database!r} is the database in use and is not dropped")
    if kept.keys and kept.keys != kept.current_keys:
        remove_tree(Path(kept.keys))
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="commit") as opened:
        databases.drop_database(opened, kept.database)


def _swap(installation: Installation, incoming: str, incoming_keys: str, kept: Kept, comment: str | None) -> Kept:
    body = {"incoming": incoming, "incoming_keys": incoming_keys, "kept": asdict(kept), "comment": comment}
    journal = open_journal(KIND, body, installation_id=installation.id, installation_directory=installation.directory)
    try:
        with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="swap") as opened:
            kept = Kept(**{**asdict(kept), "comment": databases.database_comment(opened, kept.of)})
            _swap_databases(opened, incoming, kept, comment)
        swap_keys(incoming_keys, kept)
        journal.remove()
    finally:
        journal.abandon()
    return kept


def settle(journal: Journal) -> str:
    """Complete a swap whose databases had been swapped; else say that nothing had begun."""
    installation = installation_of(journal)
    kept = Kept(**journal.body["kept"])
    docker_engine.start_container(installation.postgres.container_id)
    installation = installation_of(journal)
    with server_of(installation) as server:
        wait_until_ready(server, MAINTENANCE_DATABASE, timeout_seconds=POSTGRES_START_SECONDS)
        with session(server, MAINTENANCE_DATABASE, purpose="recover") as opened:
            if databases.database_exists(opened, str(journal.body["incoming"])):
                return "the swap had not begun; the data is as it was"
    swap_keys(str(journal.body["incoming_keys"]), kept)
    return f"completed the swap; the former data is kept as {kept.database}"


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
