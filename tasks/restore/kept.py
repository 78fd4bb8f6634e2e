"""What restores and rollbacks of an installation have put aside, as the list says and as it stands on the server and the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.host.own_directories import exists
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, Session, session
from tasks.core.stack.installation import Installation
from tasks.restore.directory_beside import host_place
from tasks.restore.directory_swap import Exchange, KeptDirectories
from tasks.restore.kept_before import adopt_databases, adopt_directories
from tasks.restore.kept_database import Kept
from tasks.restore.kept_list import Entry, begin_list, entries


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that is kept, oldest first. `gone` is in the list but no longer there; `doubts` tell of what others say is kept, and is not."""

    databases: tuple[Kept, ...]
    directories: tuple[KeptDirectories, ...]
    gone: tuple[Kept | KeptDirectories, ...]
    doubts: tuple[str, ...]


def holdings(installation: Installation) -> Holdings:
    """Read the list of what is kept, and look what of it is there; take in what was kept before there was a list."""
    directory = installation.directory
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
        known = {entry.number for entry in entries(directory, "database")}
        doubts = adopt_databases(installation, opened, known)
        if not doubts:
            begin_list(directory)
        found = [_database_of(installation, entry) for entry in entries(directory, "database")]
        there = [kept for kept in found if _is_there(opened, kept)]
    doubts += adopt_directories(installation, {str(_aside(installation, each)) for each in _listed(installation)})
    kept = [_directories_of(installation, entry) for entry in _listed(installation)]
    lying = [each for each in kept if exists(Path(each.database))]
    gone: list[Kept | KeptDirectories] = [each for each in found if each not in there]
    gone += [each for each in kept if each not in lying]
    return Holdings(tuple(there), tuple(lying), tuple(gone), tuple(doubts))


def listed_databases(installation: Installation) -> dict[int, str]:
    """Give the numbers and names of the databases in the list."""
    name = installation.database.name
    return {entry.number: entry.mark.database(name) for entry in entries(installation.directory, "database")}


def _listed(installation: Installation) -> list[Entry]:
    return entries(installation.directory, "directories")


def _aside(installation: Installation, entry: Entry) -> Path:
    return entry.mark.directory(host_place(installation))


def _is_there(opened: Session, kept: Kept) -> bool:
    """Tell whether a kept database, or something else in its stead, is there; not so where it is in use again."""
    numbered = databases.database_numbered(opened, kept.number)
    return numbered.name != kept.of if numbered is not None else databases.database_exists(opened, kept.database)


def _database_of(installation: Installation, entry: Entry) -> Kept:
    place = installation.keys_directory if entry.keys is not None else None
    return Kept(
        database=entry.mark.database(installation.database.name),
        of=installation.database.name,
        at=entry.at,
        backup=entry.backup,
        keys=str(entry.mark.directory(place)) if place is not None else "",
        current_keys=str(place) if place is not None else "",
        comment=entry.comment,
        undone=entry.mark.word == "undone",
        number=entry.number,
        keys_identity=entry.keys,
    )


def _directories_of(installation: Installation, entry: Entry) -> KeptDirectories:
    places = [(host_place(installation), entry.data)]
    if entry.keys is not None and installation.keys_directory is not None:
        places.append((installation.keys_directory, entry.keys))
    exchanges = tuple(
        Exchange(str(place), "", str(entry.mark.directory(place)), current_is=identity) for place, identity in places
    )
    return KeptDirectories(entry.at, entry.backup, exchanges, entry.mark.word == "undone")
