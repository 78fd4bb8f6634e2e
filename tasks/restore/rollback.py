"""The way back from a restore of either kind, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.restore.database_restore import put_back
from tasks.restore.database_swap import Kept, check_drop, drop_kept, kept_databases
from tasks.restore.directory_restore import put_directories_back
from tasks.restore.directory_swap import KeptDirectories, drop_kept_directories, kept_directories


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did: which restore it took back, of what, and under which name the restored data is kept."""

    backup: str
    of: str
    kept: str


def put_back_newest(installation: Installation, *, now: datetime) -> RolledBack:
    """Take the last restore back, database or data directory; raise Refused where there is nothing to go back to."""
    kept: list[Kept | KeptDirectories] = [*kept_databases(installation), *kept_directories(installation)]
    found = sorted((each for each in kept if not each.undone), key=lambda each: datetime.fromisoformat(each.at))
    if not found:
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

    Raise Refused, before anything is dropped, where PostgreSQL would not drop one of the databases.
    """
    kept, directories = kept_databases(installation), kept_directories(installation)
    for each in kept:
        check_drop(installation, each)
    for each in kept:
        drop_kept(installation, each)
    for one in directories:
        drop_kept_directories(installation, one)
    return [*(each.database for each in kept), *(each.database for each in directories)]
