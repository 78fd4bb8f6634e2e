"""The list of what restores have put aside: files in the state directory, one for each, which nobody else can write.

Only marks, numbers and identities are written down. Names and paths are computed from the installation each time.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from tasks.adapters.host import state
from tasks.adapters.host.own_directories import Identity
from tasks.core.errors import BackupError
from tasks.core.stack.beside import Mark

logger = logging.getLogger(__name__)

Kind = Literal["database", "directories"]
_DIRECTORY = "kept"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that is kept. `number` is a kept database's (0: none), `data` and `keys` are the kept directories' identities."""

    kind: Kind
    mark: Mark
    at: str
    backup: str
    number: int = 0
    comment: str | None = None
    data: Identity | None = None
    keys: Identity | None = None


def write_entry(directory: Path, entry: Entry) -> None:
    """Add an entry to the list of the installation in `directory`, on the disk before the return."""
    begin_list(directory)
    state.write_json(_path(directory, entry.kind, entry.mark), {"directory": str(directory.resolve()), **asdict(entry)})


def begin_list(directory: Path) -> None:
    """Note that from now on the list alone says what is kept."""
    if not list_is_begun(directory):
        state.write_json(_begun(directory), {"directory": str(directory.resolve())})


def list_is_begun(directory: Path) -> bool:
    """Tell whether there has been a list, be it empty now: then nothing else says what is kept."""
    return _begun(directory).exists()


def remove_entry(directory: Path, kind: Kind, mark: Mark) -> None:
    """Strike an entry out, on the disk before the return; one that is gone already is a success."""
    state.remove(_path(directory, kind, mark))


def entry_exists(directory: Path, kind: Kind, mark: Mark) -> bool:
    """Tell whether the list has such an entry."""
    return _path(directory, kind, mark).exists()


def entries(directory: Path, kind: Kind) -> list[Entry]:
    """Read the list of an installation, oldest first. Raise BackupError where an entry cannot be understood or trusted."""
    return sorted(_entries(directory, kind), key=lambda entry: datetime.fromisoformat(entry.at))


def forget_entries(directory: Path) -> None:
    """Strike all entries of an installation that is gone, such as staging."""
    for path in state.state_subdirectory(_DIRECTORY).glob(f"{_digest(directory)}-*.json"):
        state.remove(path)


def _entries(directory: Path, kind: Kind) -> Iterator[Entry]:
    for path in sorted(state.state_subdirectory(_DIRECTORY).glob(f"{_digest(directory)}-{kind}-*.json")):
        content = state.read_json(path)
        if content is not None:
            yield _entry(path, content)


def _entry(path: Path, content: Mapping[str, Any]) -> Entry:
    try:
        entry = Entry(
            kind=content["kind"],
            mark=Mark(str(content["mark"]["word"]), str(content["mark"]["stamp"])),  # type: ignore[arg-type]
            at=datetime.fromisoformat(content["at"]).isoformat(timespec="microseconds"),
            backup=str(content["backup"]),
            number=int(content["number"]),
            comment=None if content["comment"] is None else str(content["comment"]),
            data=Identity.read(content["data"]),
            keys=Identity.read(content["keys"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackupError(
            f"{path} is no entry of the list of what is kept: {error!r}",
            hint="read it; where it is worthless, remove it, and what it told of by hand",
        ) from error
    if path.name != f"{path.name.split('-')[0]}-{entry.kind}-{entry.mark.word}-{entry.mark.stamp}.json":
        raise BackupError(f"{path} tells of something else than its name", hint="was it renamed? bring its name back")
    return entry


def _path(directory: Path, kind: Kind, mark: Mark) -> Path:
    return state.state_subdirectory(_DIRECTORY) / f"{_digest(directory)}-{kind}-{mark.word}-{mark.stamp}.json"


def _begun(directory: Path) -> Path:
    return state.state_subdirectory(_DIRECTORY) / f"{_digest(directory)}-begun.json"


def _digest(directory: Path) -> str:
    return hashlib.sha256(bytes(directory.resolve())).hexdigest()[:32]
