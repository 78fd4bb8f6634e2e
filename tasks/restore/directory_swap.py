"""Swap directories by rename, keep the former ones, and bring them back.

A journal written before the first rename makes the whole row of renames one act: after a crash the next run completes it. What was
put aside is in the list of what is kept before the first rename, known by device and inode, which no rename changes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.own_directories import (
    Identity,
    exists,
    identity_of,
    remove_same,
    rename_same,
    require_absent,
    require_same,
)
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.beside import Mark, mark_of_directory, stamp_of
from tasks.core.stack.installation import Installation
from tasks.restore.directory_beside import Copy, host_place
from tasks.restore.exchange import exchange
from tasks.restore.kept_list import Entry, entry_exists, remove_entry, write_entry
from tasks.run.installations import installation_of
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "directory-swap"
DROP_KIND = "directory-drop"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One directory that takes another's place: `incoming` becomes `current`, and the former `current` becomes `aside`.

    Each is known by its identity; `current_is` is None where there was none before.
    """

    current: str
    incoming: str
    aside: str
    incoming_is: Identity | None = None
    current_is: Identity | None = None


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

    @property
    def mark(self) -> Mark:
        """Give the mark that the names of what is kept bear."""
        mark = mark_of_directory(self.database, Path(self.of))
        if mark is None:
            raise Refused(f"{self.database} is no name that a restore gives to what it puts aside")
        return mark


@step(name="swap data files", retries=0)
def swap_directories_in(installation: Installation, copy: Copy, *, backup: str) -> KeptDirectories:
    """Put the copy in place of the current data and keys, all services being stopped; return what was kept."""
    mark = Mark("before", copy.stamp)
    exchanges = [_exchange(copy.current_data, copy.data, mark)]
    if copy.keys is not None and copy.current_keys is not None and exists(copy.keys):
        exchanges.append(_exchange(copy.current_keys, copy.keys, mark))
    return _swap(installation, KeptDirectories(_now_text(datetime.now(UTC)), backup, tuple(exchanges)))


@step(name="swap data files back", retries=0)
def swap_directories_back(installation: Installation, kept: KeptDirectories, *, now: datetime) -> KeptDirectories:
    """Put back what was kept; what had come instead is kept in turn, marked as undone."""
    mark = Mark("undone", stamp_of(now))
    check_directories(kept)
    back = tuple(_exchange(Path(each.current), Path(each.aside), mark) for each in kept.exchanges)
    return _swap(installation, KeptDirectories(_now_text(now), kept.backup, back, undone=True))


def _exchange(current: Path, incoming: Path, mark: Mark) -> Exchange:
    """Look at both directories; raise Refused where one of them is a link."""
    return Exchange(
        str(current),
        str(incoming),
        str(mark.directory(current)),
        incoming_is=identity_of(incoming),
        current_is=identity_of(current) if exists(current) else None,
    )


@step(name="check swap")
def check_directories(kept: KeptDirectories) -> None:
    """Raise Refused, before anything is stopped, where what was kept is no longer all there, or something else bears its name."""
    for each in kept.exchanges:
        require_same(Path(each.aside), each.current_is)


def require_computed(installation: Installation, exchanges: tuple[Exchange, ...]) -> None:
    """Raise Refused where a path is not what is computed from the installation: then it is nothing of ours."""
    places = [str(host_place(installation)), *([str(place)] if (place := installation.keys_directory) else [])]
    fits = bool(exchanges) and exchanges[0].current == places[0]
    marks = set()
    for each in exchanges:
        mark = mark_of_directory(each.aside, Path(each.current))
        marks.add(mark)
        fits = fits and each.current in places and mark is not None
        fits = fits and (not each.incoming or mark_of_directory(each.incoming, Path(each.current)) is not None)
    if not fits or len(marks) != 1:
        raise Refused(
            f"{', '.join(each.aside for each in exchanges) or 'nothing'}: these are not the names that a restore of"
            f" {installation.id} gives (beside {', '.join(places)}), so nothing is done with them",
            hint="has the compose file changed since? then give it back what it said, and try again",
        )


@step(name="drop kept data", retries=0)
def drop_kept_directories(installation: Installation, kept: KeptDirectories) -> None:
    """Remove what was put aside; safe to repeat. It leaves the list first, so that nothing half removed is ever gone back to.

    A journal lets `recover` remove the rest after a crash.
    """
    require_computed(installation, kept.exchanges)
    for each in kept.exchanges:
        if exists(Path(each.aside)):
            require_same(Path(each.aside), each.current_is)
    body = {
        "project": installation.project,
        "asides": [each.aside for each in kept.exchanges],
        "identities": [asdict(each.current_is) if each.current_is else None for each in kept.exchanges],
    }
    journal = open_journal(
        DROP_KIND, body, installation_id=installation.id, installation_directory=installation.directory
    )
    try:
        remove_entry(installation.directory, "directories", kept.mark)
        try:
            for each in reversed(kept.exchanges):
                remove_same(Path(each.aside), each.current_is)
        except BackupError:
            # What the file system refuses to remove now it will refuse tomorrow: the error says what is left.
            journal.remove()
            raise
        journal.remove()
    finally:
        journal.abandon()


def settle_drop(journal: Journal) -> str:
    """Remove the rest of what a dead run was removing; where it is still in the list, nothing had begun."""
    installation = installation_of(journal)
    asides = [str(each) for each in journal.body["asides"]]
    identities = [Identity.read(each) for each in journal.body.get("identities") or [None] * len(asides)]
    places = [host_place(installation), installation.keys_directory]
    exchanges = tuple(
        Exchange(str(place), "", aside, current_is=identity)
        for place, aside, identity in zip(places, asides, identities, strict=False)
    )
    require_computed(installation, exchanges)
    kept = KeptDirectories("", "", exchanges)
    # A journal of before the list was kept names the file beside the data that took its place.
    beside = f"{asides[0]}.kept.json"
    if entry_exists(installation.directory, "directories", kept.mark) or (
        journal.body.get("record") == beside and exists(Path(beside))
    ):
        return f"the commit had not begun: {asides[0]} is still kept"
    left = []
    for each in reversed(exchanges):
        try:
            remove_same(Path(each.aside), each.current_is)
        except BackupError as error:
            left.append(str(error))
    if left:
        return f"the commit had begun, but something is left to be removed by hand: {'; '.join(left)}"
    return f"completed the commit: {asides[0]} is removed"


def settle(journal: Journal) -> str:
    """Complete a row of renames that a dead run had begun, or was about to begin: all of it had been proven before."""
    if not journal.installation_directory.is_dir():
        return f"{journal.installation_directory} is gone, and what was to be swapped in it"
    installation = installation_of(journal)
    exchanges = tuple(_read_exchange(each) for each in journal.body["exchanges"])
    require_computed(installation, exchanges)
    kept = KeptDirectories(
        str(journal.body["at"]), str(journal.body["backup"]), exchanges, bool(journal.body["undone"])
    )
    if not any(exists(Path(each.incoming)) or exists(Path(each.aside)) for each in exchanges):
        remove_entry(installation.directory, "directories", kept.mark)
        return f"nothing was swapped, and {exchanges[0].incoming} is gone; {exchanges[0].current} is as it was"
    _complete(installation, kept)
    return f"completed the swap; the former data is kept as {kept.database}"


def _read_exchange(value: Mapping[str, Any]) -> Exchange:
    """Read one exchange of a journal; one of before identities were written down is looked at now."""
    current, incoming, aside = (str(value[name]) for name in ("current", "incoming", "aside"))
    if "incoming_is" in value:
        return Exchange(
            current, incoming, aside, Identity.read(value["incoming_is"]), Identity.read(value["current_is"])
        )
    former = next((path for path in (Path(aside), Path(current)) if exists(path)), None)
    return Exchange(current, incoming, aside, None, identity_of(former) if former else None)


def _swap(installation: Installation, kept: KeptDirectories) -> KeptDirectories:
    require_computed(installation, kept.exchanges)
    require_absent([Path(each.aside) for each in kept.exchanges])
    journal = open_journal(
        KIND,
        {"project": installation.project, **asdict(kept)},
        installation_id=installation.id,
        installation_directory=installation.directory,
    )
    try:
        try:
            _complete(installation, kept)
        except BackupError:
            _undo(installation, kept)
            journal.remove()
            raise
        journal.remove()
    finally:
        journal.abandon()
    return kept


def write_kept(installation: Installation, kept: KeptDirectories) -> None:
    """Add directories to the list of what is kept; where there was no data before, there is nothing to list."""
    data = kept.exchanges[0].current_is
    if data is None:
        return
    keys = kept.exchanges[1].current_is if len(kept.exchanges) > 1 else None
    write_entry(installation.directory, Entry("directories", kept.mark, kept.at, kept.backup, data=data, keys=keys))


def _complete(installation: Installation, kept: KeptDirectories) -> None:
    """Rename all that is not renamed yet; the list comes first, and what was brought back leaves it last."""
    write_kept(installation, kept)
    for each in kept.exchanges:
        exchange(
            Path(each.current),
            Path(each.incoming),
            Path(each.aside),
            incoming_is=each.incoming_is,
            current_is=each.current_is,
        )
    brought = mark_of_directory(kept.exchanges[0].incoming, Path(kept.of))
    if brought is not None:
        remove_entry(installation.directory, "directories", brought)


def _undo(installation: Installation, kept: KeptDirectories) -> None:
    """Take back what was renamed of a row that the file system refused to complete."""
    for each in reversed(kept.exchanges):
        current, incoming, aside = Path(each.current), Path(each.incoming), Path(each.aside)
        if exists(aside) and not exists(incoming) and exists(current):
            rename_same(current, incoming, each.incoming_is)
        if exists(aside) and not exists(current):
            rename_same(aside, current, each.current_is)
    remove_entry(installation.directory, "directories", kept.mark)


def _now_text(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="microseconds")
