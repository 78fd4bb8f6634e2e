"""Where an archive is read from: a file of this machine, or anything else that can be opened anew as a stream from its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from tasks.adapters.archive.source import FileStream, Stream
from tasks.adapters.host.outside_files import ARCHIVE, RECORD, open_outside, read_outside
from tasks.core.archive.manifest import Record, parse_record
from tasks.core.archive.names import RECORD_EXTENSION, without_extension
from tasks.core.errors import UsageError

Identity: TypeAlias = tuple[object, ...]
"""What two readings of the same source have in common, as far as that is known; another one means that it was replaced."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that was opened: its bytes from the start, and which they are."""

    stream: Stream
    identity: Identity


class ArchiveSource(Protocol):
    """An archive that can be read as often as wanted, each time from its first byte."""

    @property
    def path(self) -> Path:
        """Where it lies, or would lie, in the repository of this machine: its name, and the place of its record."""

    @property
    def bytes(self) -> int | None:
        """Its size where that is known without reading it; None where it is not, or where it is not there."""

    def opened(self) -> AbstractContextManager[Opened]:
        """Open it; raise UsageError where it is not there, Refused where it is nothing to be read."""

    def record(self) -> Record | None:
        """Read the record beside it; None where it has none. Raise ArchiveDamaged where that is no record."""


@dataclass(frozen=True, slots=True)
class LocalArchive:
    """An archive in a file of this machine."""

    path: Path

    @property
    def bytes(self) -> int | None:
        """Its size; None where there is no such file."""
        return self.path.stat().st_size if self.path.is_file() else None

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """Open the file; it is told by its inode, size and time."""
        with ExitStack() as stack:
            try:
                descriptor, found = stack.enter_context(open_outside(self.path, ARCHIVE))
            except FileNotFoundError:
                raise UsageError(f"there is no archive {self.path}", hint="mailarchiver-backup list") from None
            yield Opened(FileStream(descriptor), (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))

    def record(self) -> Record | None:
        """Read the record beside the file."""
        return read_record_beside(self.path)


_elsewhere: ContextVar[Mapping[Path, ArchiveSource]] = ContextVar("archives_elsewhere", default={})  # noqa: B039 - never changed


@contextmanager
def read_from(sources: Mapping[Path, ArchiveSource]) -> Iterator[None]:
    """Read the archives of these paths from these sources within the block, whatever lies at the paths."""
    token = _elsewhere.set(sources)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def source_of(path: Path) -> ArchiveSource:
    """Give where the archive of a path is read from: the file there, unless it is elsewhere."""
    return _elsewhere.get().get(path) or LocalArchive(path)


def read_record_beside(path: Path) -> Record | None:
    """Read an archive's sidecar; None where it has none."""
    record_path = record_path_of(path)
    try:
        content, _ = read_outside(record_path, RECORD)
    except FileNotFoundError:
        return None
    return parse_record(content, source=str(record_path))


def record_path_of(path: Path) -> Path:
    """Name the sidecar of an archive."""
    return path.with_name(without_extension(path.name) + RECORD_EXTENSION)
