"""A target as a place to read from: its backups as a repository shows them, and their bytes streamed, never kept here.

Within the block a private directory stands for the target: its records, and for each archive an empty file of its name
and size. Whatever opens one of these gets the archive's bytes from the target.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.archive_source import Identity, Opened, read_from, read_record_beside, record_path_of
from tasks.adapters.copies.rclone import Remote
from tasks.adapters.copies.sending import Way, send_record
from tasks.adapters.copies.target import There, reading_parts
from tasks.adapters.host.files import opened, write_atomically
from tasks.adapters.host.outside_files import RECORD, read_outside
from tasks.adapters.host.state import state_subdirectory
from tasks.copies.targets import reach_target, see_target, wanted_targets
from tasks.core.archive.manifest import Record, written
from tasks.core.archive.names import split_archive_name
from tasks.core.copies.parts import archive_of
from tasks.core.errors import BackupError, UsageError
from tasks.run.config import InstallationConfig

logger = logging.getLogger(__name__)

VIEW_PREFIX = "view-"
LEFT_SECONDS = 7 * 86_400


@dataclass(frozen=True, slots=True)
class CopiedArchive:
    """An archive at a target; `path` is the file that stands for it here."""

    path: Path
    remote: Remote
    there: There

    @property
    def bytes(self) -> int | None:
        """Its size at the target."""
        return self.there.stored.bytes

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """Read it from the target, part after part; it is told by the names and sizes of its parts."""
        parts = self.there.stored.parts
        identity: Identity = (self.remote.place, *((each.name, each.bytes) for each in parts))
        with reading_parts(self.remote, parts) as pieces:
            yield Opened(_PieceStream(pieces), identity)

    def record(self) -> Record | None:
        """Read the record that was fetched from beside it."""
        return read_record_beside(self.path)


class _PieceStream:
    """Read pieces as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held, self._at = pieces, b"", 0

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; empty means the end."""
        while self._at == len(self._held):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._held, self._at = piece, 0
        data = self._held[self._at : self._at + size]
        self._at += len(data)
        return data


@contextmanager
def target_view(config: InstallationConfig, name: str) -> Iterator[InstallationConfig]:
    """Give a configuration whose archives are those of a target, within the block; only whole ones are seen.

    A verdict that is found meanwhile is written where the archive's record belongs: to the repository's own, where it
    has the very same archive, else to the target's.
    """
    (target,) = wanted_targets(config, name)
    remote = reach_target(config, target)
    seen = see_target(config, target, remote, now=datetime.now(UTC))
    state_subdirectory("copies")
    above = state_subdirectory(f"copies/{config.id}")
    _remove_left(above)
    with tempfile.TemporaryDirectory(prefix=VIEW_PREFIX, dir=above) as place:
        view = Path(place).resolve()  # as archives are known by their paths, no matter who follows links on the way
        found = [each for each in seen.content.backups.values() if each.is_whole]
        sources = {each.path: each for each in (_stand_in(view, remote, one) for one in found) if each is not None}
        legacy = [each.name for each in seen.content.stored.values() if each.parts and each.record is None]
        if legacy:
            logger.info("target %s: %s have no record yet, and are not seen", name, ", ".join(legacy))
        with read_from(sources):
            yield replace(config, elsewhere=view)
            for path, source in sources.items():
                _bring_back(config, Way(remote, target.part_bytes, None, ""), path, source.there)


@contextmanager
def archives_from(config: InstallationConfig, target: str, backup: str) -> Iterator[InstallationConfig]:
    """Give a configuration whose archives are those of a target within the block; the same one where none is named, or it is one already."""
    if not target or config.elsewhere is not None:
        yield config
        return
    require_name(backup)
    with target_view(config, target) as there:
        yield there


def require_name(backup: str) -> None:
    """Raise UsageError where a backup of a target is named by a path."""
    if backup not in ("latest", "stalest") and not split_archive_name(archive_of(backup) or f"{backup}.tar.gz"):
        raise UsageError(
            f"{backup!r} is no backup's name", hint="with --from: a name that `list --from TARGET` shows, or latest"
        )


def _stand_in(view: Path, remote: Remote, there: There) -> CopiedArchive | None:
    """Make the files that stand for a copy; None, which is logged, for one of a size that no file may have."""
    path = view / there.record.file
    try:
        with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            os.truncate(descriptor, there.record.bytes)
    except OSError as error:
        logger.warning("target %s: %s is not taken: %s", remote.target, there.record.file, error.strerror)
        path.unlink(missing_ok=True)
        return None
    write_atomically(record_path_of(path), written(there.record))
    return CopiedArchive(path, remote, there)


def _bring_back(config: InstallationConfig, way: Way, path: Path, there: There) -> None:
    """Send a record to the target that has changed meanwhile: the verdict of a verification."""
    content, _ = read_outside(record_path_of(path), RECORD)
    if content == written(there.record):
        return
    try:
        send_record(way, record_path_of(path).name, content, replaces=True)
    except BackupError as error:
        logger.warning("the verdict on %s cannot be kept at target %s: %s", path.name, way.remote.target, error.message)


def _remove_left(above: Path) -> None:
    """Remove what killed runs have left, of which none still runs."""
    for each in above.glob(f"{VIEW_PREFIX}*"):
        if time.time() - each.stat().st_mtime > LEFT_SECONDS:
            shutil.rmtree(each, ignore_errors=True)
