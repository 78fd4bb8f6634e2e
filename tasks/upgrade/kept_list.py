"""The list of what upgrades have put aside: files in the state directory, one for each, which nobody else can write."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.adapters.host import state
from tasks.adapters.host.own_directories import Identity
from tasks.core.errors import BackupError
from tasks.core.stack.beside import Mark

_DIRECTORY = "kept-upgrades"


@dataclass(frozen=True, slots=True)
class KeptApplication:
    """What is to be known of the application as it was: its image, and how many mails and which schema version its data had.

    The data itself is in the list of kept databases, under the same mark.
    """

    image_id: str
    digest: str
    mails: int
    schema: str

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> KeptApplication:
        """Read what was written down; raise KeyError, TypeError or ValueError for something else."""
        return cls(str(value["image_id"]), str(value["digest"]), int(value["mails"]), str(value["schema"]))


@dataclass(frozen=True, slots=True)
class KeptUpgrade:
    """What an upgrade (or its rollback) put aside: the data's identity, and files by their current path with their SHA-256.

    The images are the one that the data was of, and the one that took its place; `brought` are the SHA-256 of the files
    that came instead, `target` is where the data was mounted. Of the application there is no such data, but `application`.
    """

    mark: Mark
    at: str
    from_image: str
    to_image: str
    data: Identity | None
    files: Mapping[str, str]
    brought: Mapping[str, str]
    target: str
    application: KeptApplication | None = None


def write_upgrade(directory: Path, kept: KeptUpgrade) -> None:
    """Add an entry to the list of the installation in `directory`, on the disk before the return."""
    state.write_json(_path(directory, kept.mark), {"directory": str(directory.resolve()), **asdict(kept)})


def remove_upgrade(directory: Path, mark: Mark) -> None:
    """Strike an entry out; one that is gone already is a success."""
    state.remove(_path(directory, mark))


def upgrade_exists(directory: Path, mark: Mark) -> bool:
    """Tell whether the list has such an entry."""
    return _path(directory, mark).exists()


def kept_upgrades(directory: Path) -> list[KeptUpgrade]:
    """Read the list, oldest first. Raise BackupError where an entry cannot be understood or trusted."""
    found = []
    for path in sorted(state.state_subdirectory(_DIRECTORY).glob(f"{_digest(directory)}-*.json")):
        content = state.read_json(path)
        if content is None:
            continue
        try:
            identity = Identity.read(content["data"])
            application = content.get("application")
            if (identity is None) == (application is None):
                raise ValueError("neither a data directory nor an application, or both")
            files, brought = (
                {str(name): str(digest) for name, digest in content[each].items()} for each in ("files", "brought")
            )
            kept = KeptUpgrade(
                mark=Mark(str(content["mark"]["word"]), str(content["mark"]["stamp"])),  # type: ignore[arg-type]
                at=datetime.fromisoformat(content["at"]).isoformat(timespec="microseconds"),
                from_image=str(content["from_image"]),
                to_image=str(content["to_image"]),
                data=identity,
                files=files,
                brought=brought,
                target=str(content["target"]),
                application=KeptApplication.read(application) if application is not None else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BackupError(
                f"{path} is no entry of the list of what upgrades have kept: {error!r}",
                hint="read it; where it is worthless, remove it, and what it told of by hand",
            ) from error
        if _path(directory, kept.mark) != path:
            raise BackupError(f"{path} tells of something else than its name", hint="was it renamed?")
        found.append(kept)
    return sorted(found, key=lambda each: datetime.fromisoformat(each.at))


def _path(directory: Path, mark: Mark) -> Path:
    return state.state_subdirectory(_DIRECTORY) / f"{_digest(directory)}-{mark.word}-{mark.stamp}.json"


def _digest(directory: Path) -> str:
    return hashlib.sha256(bytes(directory.resolve())).hexdigest()[:32]
