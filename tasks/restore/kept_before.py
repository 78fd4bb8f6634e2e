"""What is said to be kept but is not in the list: by the comment on a database, or by a file beside the data.

Before there was a list, these said it. Anybody who may comment on a database can say so too. So a comment is believed
once, while there has never been a list, of a database that belongs to the current one's owner, and never for a path:
the keys that it names stay where they are. All else is left alone and told.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.adapters.host.outside_files import KEPT_DATA, read_outside
from tasks.adapters.host.own_directories import exists, identity_of
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.session import Session
from tasks.core.errors import Refused
from tasks.core.stack.beside import mark_of_database, mark_of_directory
from tasks.core.stack.installation import Installation
from tasks.restore import database_swap, directory_swap
from tasks.restore.directory_swap import Exchange, KeptDirectories
from tasks.restore.kept_database import KEPT, Kept
from tasks.restore.kept_list import list_is_begun

logger = logging.getLogger(__name__)

RECORD_EXTENSION = ".kept.json"


def adopt_databases(installation: Installation, opened: Session, known: Collection[int]) -> list[str]:
    """Take databases whose comment alone says that they are kept into the list; return, in words, those that are left alone."""
    doubts = []
    for name, comment in databases.databases_commented(opened, KEPT).items():
        entry = databases.database_entry(opened, name)
        if entry is None or entry.number in known:
            continue
        if list_is_begun(installation.directory):
            # Restores since keep their own list: what only a comment says is older than any of them, or a lie.
            doubts.append(
                f"the comment of database {name} says that a restore put it aside, but the list of what is kept does not"
            )
            continue
        try:
            owners = [databases.database_owner(opened, each) for each in (name, installation.database.name)]
            if owners[0] != owners[1]:
                raise Refused(f"it belongs to {owners[0]}, not to {owners[1]}")
            kept = _kept_database(installation, name, entry.number, json.loads(comment.removeprefix(KEPT)))
        except (Refused, KeyError, TypeError, ValueError, RecursionError) as error:
            why = error.message if isinstance(error, Refused) else "it is not written as ours are"
            doubts.append(f"the comment of database {name} says that a restore put it aside, but {why}")
            continue
        logger.warning("Database %s was put aside before there was a list of such; it is in the list now", name)
        if said_keys := _keys_of(installation, kept):
            logger.warning(
                "%s may be its keys, which only a comment says: it is left alone, for you to move or remove", said_keys
            )
        database_swap.write_kept(installation, kept)
    return doubts


def _kept_database(installation: Installation, name: str, number: int, said: dict[str, Any]) -> Kept:
    current, place = installation.database.name, installation.keys_directory
    mark = mark_of_database(name, current)
    if (
        mark is None
        or mark.word == "restored"
        or said["of"] != current
        or bool(said["undone"]) != (mark.word == "undone")
    ):
        raise Refused(f"that is no name that a restore of {current} gives")
    keys = str(mark.directory(place)) if place is not None else ""
    if (said["keys"], said["current_keys"]) not in (("", ""), (keys, str(place))):
        raise Refused(f"the keys that it names ({said['keys']!r}) are not {keys}, where a restore puts them")
    return Kept(
        database=name,
        of=current,
        at=datetime.fromisoformat(said["at"]).isoformat(timespec="microseconds"),
        backup=str(said["backup"]),
        keys="",
        current_keys="",
        comment=None if said["comment"] is None else str(said["comment"]),
        undone=mark.word == "undone",
        number=number,
    )


def _keys_of(installation: Installation, kept: Kept) -> Path | None:
    """Name what lies where a restore puts keys aside."""
    place = installation.keys_directory
    aside = kept.mark.directory(place) if place is not None else None
    return aside if aside is not None and exists(aside) else None


def adopt_directories(installation: Installation, known: Collection[str]) -> list[str]:
    """Take directories that a file beside the data says are kept into the list; return, in words, those that are left alone."""
    place, doubts = installation.data_directory, []
    if place is None or not os.access(place.parent, os.R_OK | os.X_OK):
        return []
    for path in sorted(place.parent.iterdir()):
        aside = str(path).removesuffix(RECORD_EXTENSION)
        if aside == str(path) or mark_of_directory(aside, place) is None or aside in known:
            continue
        try:
            kept = _kept_directories(installation, path, aside)
        except (Refused, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            why = error.message if isinstance(error, Refused) else f"it cannot be used: {error}"
            doubts.append(f"{path} says that a restore put {aside} aside, but {why}")
            continue
        if kept is not None:
            logger.warning("%s was put aside before there was a list of such; it is in the list now", aside)
            directory_swap.write_kept(installation, kept)
        path.unlink(missing_ok=True)
    return doubts


def _kept_directories(installation: Installation, path: Path, aside: str) -> KeptDirectories | None:
    """Read such a file; None where there is nothing behind it any more."""
    content, found = read_outside(path, KEPT_DATA)
    if stat.S_IMODE(found.st_mode) & 0o022 or found.st_uid not in (0, os.geteuid()):
        raise Refused("others may write to it")
    said = json.loads(content)
    exchanges = tuple(
        Exchange(str(each["current"]), str(each["incoming"]), str(each["aside"])) for each in said["exchanges"]
    )
    directory_swap.require_computed(installation, exchanges)
    if exchanges[0].aside != aside:
        raise Refused(f"it tells of {exchanges[0].aside}")
    if not exists(Path(aside)):
        return None
    known = tuple(
        Exchange(each.current, "", each.aside, current_is=identity_of(Path(each.aside))) for each in exchanges
    )
    at = datetime.fromisoformat(said["at"]).isoformat(timespec="microseconds")
    return KeptDirectories(at, str(said["backup"]), known, bool(said["undone"]))
