"""Exchange one directory for another by two renames, each of them known by what it is."""

from __future__ import annotations

from pathlib import Path

from tasks.adapters.host.own_directories import Identity, exists, identity_of, rename_same, require_same
from tasks.core.errors import BackupError


def exchange(
    current: Path, incoming: Path, aside: Path, *, incoming_is: Identity | None, current_is: Identity | None
) -> None:
    """Rename `current` to `aside` and `incoming` to `current`; whatever of that is done already is left.

    Raise Refused where one of them is a link, or not the directory that was written down.
    """
    if not exists(incoming):
        return
    require_same(incoming, incoming_is)
    if exists(current):
        if exists(aside):
            # Docker made this directory anew for a container it started too early: the former one stands aside already.
            require_same(aside, current_is)
            rename_same(current, aside.with_name(f"{aside.name}.stray"), identity_of(current))
        else:
            rename_same(current, aside, current_is)
    try:
        rename_same(incoming, current, incoming_is)
    except BackupError:
        if not exists(current) and exists(aside):
            rename_same(aside, current, current_is)
        raise
