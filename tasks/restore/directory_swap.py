"""Swap directories by rename, keep the former ones, and bring them back.

A journal written before the first rename makes the whole row of renames one act: after a crash the next run completes it. What was
put aside is described by a small JSON file beside it, so that `rollback` and `commit` need nothing else.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.host.files import fsync_directory, remove_tree, rename, write_atomically
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.outside_files import KEPT_DATA, read_outside
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.installation import Installation
from tasks.restore.directory_beside import Copy, host_place
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "directory-swap"
DROP_KIND = "directory-drop"
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
    return _swap(
        installation, KeptDirectories(_now_text(now), kept.backup, back, undone=True), stale=_record_path(kept)
    )


@step(name="check swap")
def check_directories(kept: KeptDirectories) -> None:
    """Raise Refused, before anything is stopped, where what was kept is no longer all there."""
    for each in kept.exchanges:
        if not Path(each.aside).is_dir():
            raise Refused(
                f"{each.aside}, which a restore put aside, is no longer a directory; there is nothing to go back to",
                hint="was it moved or removed by hand? bring it back to that name",
            )


def kept_directories(installation: Installation) -> list[KeptDirectories]:
    """List what restores of this installation's data directory have put aside, oldest first."""
    place = installation.data_directory
    found: list[KeptDirectories] = []
    if place is None or not os.access(place.parent, os.R_OK | os.X_OK):
        return found
    for path in sorted(place.parent.glob(f"{place.name}.*{RECORD_EXTENSION}")):
        content = json.loads(read_outside(path, KEPT_DATA)[0])
        kept = KeptDirectories(
            content["at"],
            content["backup"],
            tuple(Exchange(**each) for each in content["exchanges"]),
            content["undone"],
        )
        # Where a rollback was killed between its renames and the removal of this record, there is nothing behind it any more.
        if kept.of == str(place) and os.path.lexists(kept.database):
            found.append(kept)
    return sorted(found, key=lambda kept: kept.at)


@step(name="drop kept data", retries=0)
def drop_kept_directories(installation: Installation, kept: KeptDirectories) -> None:
    """Remove what was put aside; safe to repeat. The record goes first, so that nothing half removed is ever gone back to.

    A journal lets `recover` remove the rest after a crash.
    """
    place = str(host_place(installation))
    for each in kept.exchanges:
        aside = Path(each.aside)
        if each.aside in (each.current, place) or not (".before-" in aside.name or ".undone-" in aside.name):
            raise Refused(f"{each.aside} is not something that a restore put aside, and is not removed")
    body = {"record": str(_record_path(kept)), "asides": [each.aside for each in kept.exchanges]}
    journal = open_journal(
        DROP_KIND, body, installation_id=installation.id, installation_directory=installation.directory
    )
    try:
        _remove_record(_record_path(kept))
        try:
            for each in reversed(kept.exchanges):
                remove_tree(Path(each.aside))
        except BackupError:
            # What the file system refuses to remove now it will refuse tomorrow: the error says what is left.
            journal.remove()
            raise
        journal.remove()
    finally:
        journal.abandon()


def settle_drop(journal: Journal) -> str:
    """Remove the rest of what a dead run was removing; where its record is still there, nothing had begun."""
    asides = [Path(each) for each in journal.body["asides"]]
    if os.path.lexists(str(journal.body["record"])):
        return f"the commit had not begun: {asides[0]} is still kept"
    left = []
    for aside in reversed(asides):
        try:
            remove_tree(aside)
        except BackupError as error:
            left.append(str(error))
    if left:
        return f"the commit had begun, but something is left to be removed by hand: {'; '.join(left)}"
    return f"completed the commit: {asides[0]} is removed"


def settle(journal: Journal) -> str:
    """Complete a row of renames that a dead run had begun, or was about to begin: all of it had been proven before."""
    exchanges = tuple(Exchange(**each) for each in journal.body["exchanges"])
    kept = KeptDirectories(
        str(journal.body["at"]), str(journal.body["backup"]), exchanges, bool(journal.body["undone"])
    )
    if not any(os.path.lexists(each.incoming) or os.path.lexists(each.aside) for each in exchanges):
        _remove_record(_record_path(kept))
        return f"nothing was swapped, and {exchanges[0].incoming} is gone; {exchanges[0].current} is as it was"
    stale = str(journal.body.get("stale") or "")
    _complete(kept, Path(stale) if stale else None)
    return f"completed the swap; the former data is kept as {kept.database}"


def _swap(installation: Installation, kept: KeptDirectories, stale: Path | None = None) -> KeptDirectories:
    for each in kept.exchanges:
        if not Path(each.incoming).is_dir():
            raise Refused(f"{each.incoming} is no directory, so it cannot take the place of {each.current}")
    journal = open_journal(
        KIND,
        {**asdict(kept), "stale": str(stale or "")},
        installation_id=installation.id,
        installation_directory=installation.directory,
    )
    try:
        try:
            _complete(kept, stale)
        except BackupError:
            _undo(kept)
            journal.remove()
            raise
        journal.remove()
    finally:
        journal.abandon()
    return kept


def _complete(kept: KeptDirectories, stale: Path | None) -> None:
    """Rename all that is not renamed yet; the record of what is kept comes first, one that this makes stale goes last."""
    write_atomically(_record_path(kept), json.dumps(asdict(kept), indent=1).encode())
    for each in kept.exchanges:
        exchange(Path(each.current), Path(each.incoming), Path(each.aside))
    if stale is not None:
        _remove_record(stale)


def _undo(kept: KeptDirectories) -> None:
    """Take back what was renamed of a row that the file system refused to complete."""
    for each in reversed(kept.exchanges):
        current, incoming, aside = Path(each.current), Path(each.incoming), Path(each.aside)
        if os.path.lexists(aside) and not os.path.lexists(incoming) and os.path.lexists(current):
            rename(current, incoming)
        if os.path.lexists(aside) and not os.path.lexists(current):
            rename(aside, current)
        fsync_directory(current.parent)
    _remove_record(_record_path(kept))


def _remove_record(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.is_dir():  # that of a dead verification went with its staging stack
        fsync_directory(path.parent)


def exchange(current: Path, incoming: Path, aside: Path) -> None:
    """Rename `current` to `aside` and `incoming` to `current`; whatever of that is done already is left."""
    if not incoming.exists():
        return
    if current.exists():
        # Where the former one stands aside already, Docker made this directory anew for a container it started too early.
        rename(current, aside if not aside.exists() else aside.with_name(f"{aside.name}.stray"))
    try:
        rename(incoming, current)
    except BackupError:
        if not os.path.lexists(current) and os.path.lexists(aside):
            rename(aside, current)
        raise
    fsync_directory(current.parent)


def _record_path(kept: KeptDirectories) -> Path:
    aside = Path(kept.exchanges[0].aside)
    return aside.with_name(aside.name + RECORD_EXTENSION)


def _aside(current: Path, word: str, stamp: str) -> str:
    return str(current.with_name(f"{current.name}.{word}-{stamp}"))


def _now_text(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="microseconds")
