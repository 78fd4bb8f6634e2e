"""Exchange a configuration file for another content, and keep the former one beside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.host.files import fsync_directory, rename, write_atomically
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.outside_files import CONFIGURATION, read_outside
from tasks.adapters.host.own_directories import exists
from tasks.core.errors import Refused
from tasks.core.stack.beside import Mark
from tasks.core.stack.compose_edit import Text
from tasks.core.stack.installation import Installation
from tasks.recovery.journalled import journalled

KIND = "upgrade-files"


@dataclass(frozen=True, slots=True)
class FileExchange:
    """One file that takes another's place, as `Exchange` does for directories; each is known by its content."""

    current: str
    incoming: str
    aside: str
    incoming_sha256: str
    current_sha256: str


def beside(file: Path, mark: Mark) -> Path:
    """Name a file with a mark beside another."""
    return mark.directory(file)


@contextmanager
def new_files(stack: Installation, texts: Sequence[Text], mark: Mark) -> Iterator[None]:
    """Write new contents beside files, with their owners and modes; what was not put in place at the end of the block is removed."""
    places = [beside(each.path, mark) for each in texts]
    journal = open_journal(
        KIND, {"files": [str(each) for each in places], "project": stack.project},
        installation_id=stack.id, installation_directory=stack.directory,
    )  # fmt: skip
    with journalled(journal, lambda: _remove_new(places)):
        for each, place in zip(texts, places, strict=True):
            write_atomically(place, each.text.encode(), like=each.path.stat())
        yield


def settle(journal: Journal) -> str:
    """Remove the new contents that a dead run had written beside files and not put in place."""
    places = [Path(str(each)) for each in journal.body["files"]]
    for place in places:
        found = re.fullmatch(r"(.+)\.restored-\d{8}_\d{6}", place.name)
        if found is None or not place.with_name(found[1]).is_file():
            raise Refused(
                f"{place} is not the name that an upgrade gives beside a file, so it is not removed",
                hint=f"read {journal.path}; remove what it tells of by hand",
            )
    _remove_new(places)
    return "removed the new compose file that was not put in place"


def _remove_new(places: Sequence[Path]) -> None:
    for place in places:
        if not place.is_symlink() and place.is_file():
            place.unlink()
            fsync_directory(place.parent)


def refuse_link(file: Path) -> None:
    """Raise Refused for a link: an exchange would put a file in its place."""
    if file.is_symlink():
        raise Refused(f"{file} is a link and is not replaced", hint="let the stack have a compose file of its own")


def plan_exchange(current: Path, incoming: Path, mark: Mark) -> FileExchange:
    """Look at both files, and say what is to be exchanged for what; raise Refused for a link."""
    refuse_link(current)
    aside = beside(current, mark)
    return FileExchange(str(current), str(incoming), str(aside), digest_of(incoming), digest_of(current))


def exchange_file(change: FileExchange) -> None:
    """Keep `current` as `aside`, and give its name to `incoming`; whatever of that is done already is left.

    The file has its name, and one of the two contents, at every moment. Raise Refused where one is not what was noted.
    """
    current, incoming, aside = Path(change.current), Path(change.incoming), Path(change.aside)
    if not exists(incoming):
        return
    _require(incoming, change.incoming_sha256)
    if not exists(aside):
        _require(current, change.current_sha256)
        content, found = read_outside(current, CONFIGURATION)
        write_atomically(aside, content, like=found)
    _require(aside, change.current_sha256)
    rename(incoming, current)
    fsync_directory(current.parent)


def exchange_file_back(change: FileExchange) -> None:
    """Take an exchange back, as far as it was done."""
    current, incoming, aside = Path(change.current), Path(change.incoming), Path(change.aside)
    if not exists(aside):
        return
    if not exists(incoming) and digest_of(current) == change.incoming_sha256:
        content, found = read_outside(current, CONFIGURATION)
        write_atomically(incoming, content, like=found)
    rename(aside, current)
    fsync_directory(current.parent)


def remove_file(path: Path, sha256: str) -> None:
    """Remove a file that was put aside, if it still is the one; absent is success."""
    if exists(path):
        _require(path, sha256)
        path.unlink(missing_ok=True)
        fsync_directory(path.parent)


def digest_of(path: Path) -> str:
    """Give the SHA-256 of a configuration file."""
    return hashlib.sha256(read_outside(path, CONFIGURATION)[0]).hexdigest()


def _require(path: Path, sha256: str) -> None:
    try:
        same = digest_of(path) == sha256
    except FileNotFoundError:
        same = False
    if not same:
        raise Refused(
            f"{path} is not what it was when the upgrade began",
            hint="see who changed it; give it back its content, and run `mailarchiver-backup recover`",
        )
