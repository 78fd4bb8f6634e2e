"""The way back from a restore of either kind, and its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from tasks.adapters.host.own_directories import exists, require_same
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.restore.database_commit import check_drop, drop_kept
from tasks.restore.database_restore import put_back
from tasks.restore.directory_restore import put_directories_back
from tasks.restore.directory_swap import KeptDirectories, drop_kept_directories
from tasks.restore.kept import holdings
from tasks.restore.kept_database import Kept

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did: which restore (of a backup) or upgrade (to an image) it took back, of what, and what is kept instead.

    `last_dump` is the backup that was taken of what goes, "" where none was.
    """

    backup: str
    of: str
    kept: str
    act: Literal["restore of", "upgrade to"] = "restore of"
    notes: tuple[str, ...] = ()
    last_dump: str = ""

    def __str__(self) -> str:
        """Say what is in place now, and what is kept."""
        said = f"The data from before the {self.act} {self.backup} is back. What that had brought is kept as {self.kept} until `commit`."
        return " ".join([said, *self.notes])


def put_back_newest(installation: Installation, *, now: datetime) -> RolledBack:
    """Take the last restore back, database or data directory; raise Refused where there is nothing to go back to."""
    held = holdings(installation)
    _tell(held.doubts)
    kept: list[Kept | KeptDirectories] = [*held.databases, *held.directories]
    found = sorted((each for each in kept if not each.undone), key=lambda each: datetime.fromisoformat(each.at))
    if not found:
        _refuse_doubts(held.doubts)
        raise Refused(
            f"no restore of {installation.id} has left anything to go back to",
            hint="was it committed, or rolled back already?",
        )
    newest = found[-1]
    if isinstance(newest, Kept):
        return RolledBack(newest.backup, newest.of, put_back(installation, newest, now=now).database)
    return RolledBack(newest.backup, newest.of, put_directories_back(installation, newest, now=now).database)


def drop_all_kept(installation: Installation) -> list[str]:
    """Drop everything that restores and rollbacks have put aside; return the names.

    Raise Refused, before anything is dropped, where PostgreSQL would not drop one of the databases, or something else
    bears the name of what was kept. What others say is kept is left alone and told.
    """
    held = holdings(installation)
    _tell(held.doubts)
    everything: list[Kept | KeptDirectories] = [*held.gone, *held.databases, *held.directories]
    if not everything:
        _refuse_doubts(held.doubts)
    for each in everything:
        if isinstance(each, KeptDirectories):
            _check_directories_to_drop(each)
        else:
            check_drop(installation, each)
    for each in everything:
        if isinstance(each, KeptDirectories):
            drop_kept_directories(installation, each)
        else:
            drop_kept(installation, each)
    return [*(each.database for each in held.databases), *(each.database for each in held.directories)]


def _check_directories_to_drop(kept: KeptDirectories) -> None:
    for each in kept.exchanges:
        if exists(Path(each.aside)):
            require_same(Path(each.aside), each.current_is)


def _tell(doubts: Sequence[str]) -> None:
    for doubt in doubts:
        logger.warning("Left alone: %s", doubt)


def _refuse_doubts(doubts: Sequence[str]) -> None:
    if doubts:
        raise Refused(
            "; ".join(doubts),
            hint="nothing was touched; anybody who may comment on a database can say so: look at it, and remove it by hand if it is not wanted",
        )
