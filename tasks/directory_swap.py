"""Swap directories by rename, keep the former ones, and bring them back.

A journal written before the first rename makes the whole row of renames one act: whoever comes after a crash completes it. What was
put aside is described by a small JSON file beside it, so that `rollback` and `commit` need nothing else.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.files import fsync_directory, remove_tree, rename, write_atomically
from tasks.adapters.journals import Journal, open_journal
from tasks.core.errors import Refused
from tasks.core.installation import Installation
from tasks.physical import Copy, host_place
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "directory-swap"
RECORD_EXTENSION = ".kept.json"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One directory that takes another's place: `incoming` becomes `current`, and the former `current` becomes `aside`."""

    current: str
    incoming: str
    aside: str


@dataclass(frozen=True, slots=True)
class KeptDirectories:
    """What a restore (or a rollback) of a data directory put aside."""

    at: str
    backup: str
    exchanges: tuple[Exchange, ...]
    undone: bool = False

    @property
    def database(self) -> str:
        """Name of what is kept, for people."""
        return self.exchanges[0].aside

    @property
    def of(self) -> str:
        """Name of what it was, for people."""
        return self.exchanges[0].current


@step(name="swap data files", retries=0)
def swap_directories_in(installation: Installation, copy: Copy, *, backup: str) -> KeptDirectories:
    """Put the copy in place of the current data and keys, all services being stopped; return what was kept."""
    exchanges = [Exchange(str(copy.current_data), str(copy.data), _aside(copy.current_data, "before", copy.stamp))]
    if copy.keys is not None and copy.current_keys is not None and copy.keys.exists():
        exchanges.append(
            Exchange(str(copy.current_keys), str(copy.keys), _aside(copy.current_keys, "before", copy.stamp))
        )
    return _swap(installation, KeptDirectories(_now_text(datetime.now(UTC)), backup, tuple(exchanges)))


@step(name="swap data files back", retries=0)
def swap_directories_back(installation: Installation, kept: KeptDirectories, *, now: datetime) -> KeptDirectories:
    """Put back what was kept; what had come instead is kept in turn, marked as undone."""
    stamp = f"{now.astimezone(UTC):%Y%m%d_%H%M%S}"
    back = tuple(
        Exchange(each.current, each.aside, _aside(Path(each.current), "undone", stamp)) for each in kept.exchanges
    )
    undone = _swap(installation, KeptDirectories(_now_text(now), kept.backup, back, undone=True))
    _record_path(kept).unlink(missing_ok=True)
    return undone


def kept_directories(installation: Installation) -> list[KeptDirectories]:
    """List what restores of this installation's data directory have put aside, oldest first."""
    if installation.data_mount.host_path is None:
        return []
    place = installation.data_mount.host_path / Path(installation.pgdata).relative_to(installation.data_mount.target)
    found = []
    if not os.access(place.parent, os.R_OK | os.X_OK):
        return []
    for path in sorted(place.parent.glob(f"{place.name}.*{RECORD_EXTENSION}")):
        content = json.loads(path.read_text())
        kept = KeptDirectories(
            content["at"],
            content["backup"],
            tuple(Exchange(**each) for each in content["exchanges"]),
            content["undone"],
        )
        if kept.of == str(place):
            found.append(kept)
    return sorted(found, key=lambda kept: kept.at)


@step(name="drop kept data")
def drop_kept_directories(installation: Installation, kept: KeptDirectories) -> None:
    """Remove what was put aside, its record last; safe to repeat."""
    place = str(host_place(installation))
    for each in reversed(kept.exchanges):
        aside = Path(each.aside)
        if each.aside in (each.current, place) or not (".before-" in aside.name or ".undone-" in aside.name):
            raise Refused(f"{each.aside} is not something that a restore put aside, and is not removed")
        remove_tree(aside)
    _record_path(kept).unlink(missing_ok=True)


def settle(journal: Journal) -> str:
    """Complete a row of renames that a dead run had begun, or was about to begin: all of it had been proven before."""
    exchanges = tuple(Exchange(**each) for each in journal.body["exchanges"])
    kept = KeptDirectories(
        str(journal.body["at"]), str(journal.body["backup"]), exchanges, bool(journal.body["undone"])
    )
    _complete(kept)
    return f"completed the swap; the former data is kept as {kept.database}"


def _swap(installation: Installation, kept: KeptDirectories) -> KeptDirectories:
    journal = open_journal(
        KIND, asdict(kept), installation_id=installation.id, installation_directory=installation.directory
    )
    try:
        _complete(kept)
        journal.remove()
    finally:
        journal.abandon()
    return kept


def _complete(kept: KeptDirectories) -> None:
    write_atomically(_record_path(kept), json.dumps(asdict(kept), indent=1).encode())
    for each in kept.exchanges:
        exchange(Path(each.current), Path(each.incoming), Path(each.aside))


def exchange(current: Path, incoming: Path, aside: Path) -> None:
    """Rename `current` to `aside` and `incoming` to `current`; whatever of that is done already is left."""
    if not incoming.exists():
        return
    if current.exists():
        # Where the former one stands aside already, Docker made this directory anew for a container it started too early.
        rename(current, aside if not aside.exists() else aside.with_name(f"{aside.name}.stray"))
    rename(incoming, current)
    fsync_directory(current.parent)


def _record_path(kept: KeptDirectories) -> Path:
    aside = Path(kept.exchanges[0].aside)
    return aside.with_name(aside.name + RECORD_EXTENSION)


def _aside(current: Path, word: str, stamp: str) -> str:
    return str(current.with_name(f"{current.name}.{word}-{stamp}"))


def _now_text(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="microseconds")
