"""One step's part of an archive under construction: members are added to it, compressed, in one pass."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path

from tasks.adapters.archive.compression import THREADS, Compressor, open_compressor
from tasks.adapters.archive.sink import Sink
from tasks.adapters.archive.source import CHUNK_BYTES
from tasks.adapters.host.deferred_signals import signals_deferred
from tasks.adapters.host.files import BytesLike
from tasks.adapters.host.tree_walk import walk
from tasks.core.archive.manifest import Format, Member
from tasks.core.archive.tar_reader import Limits
from tasks.core.archive.tar_writer import EntryKind, padding, stored_segment, tar_header
from tasks.core.errors import BackupError, Refused

OnBytes = Callable[[int, int], None]
_PROGRESS_EVERY_BYTES = 8 * 1024 * 1024
_STEADY_READ_ATTEMPTS = 5
_OF_OURS = 16  # the top directory, the manifest and the like


class Segment:
    """Append members to an archive; made by `archive_writer.segment` only.

    Member names are relative to the archive's top directory. `on_bytes` hears of the raw and the written bytes of this segment
    about every eight mebibytes. `notes` say what was passed over (sockets, FIFOs, devices).
    """

    def __init__(
        self,
        sink: Sink,
        top: str,
        archive_format: Format,
        *,
        taken: Collection[str],
        level: int | None = None,
        threads: int = THREADS,
        on_bytes: OnBytes | None = None,
    ) -> None:
        self.members: list[Member] = []
        self.directories: list[str] = []
        self.notes: list[str] = []
        self.raw_bytes = 0
        self._sink = sink
        self._begins = sink.position
        self._top = top
        self._format: Format = archive_format
        self._taken = set(taken)
        self._level = level
        self._threads = threads
        self._on_bytes = on_bytes
        self._told_bytes = 0
        self._compressor: Compressor | None = None

    def add_stream(
        self,
        member_name: str,
        chunks: Iterable[BytesLike],
        *,
        mtime: datetime,
        mode: int = 0o600,
        uid: int = 0,
        gid: int = 0,
    ) -> Member:
        """Add a member whose size only the end of `chunks` tells; nothing is kept in memory or written twice.

        Its header is reserved uncompressed and filled in at the end. An error of `chunks` passes through unchanged.
        """
        self._claim(member_name)
        self._end_compressor()

        def header(size: int) -> bytes:
            seconds = int(mtime.timestamp())
            return stored_segment(
                tar_header(f"{self._top}/{member_name}", size=size, mode=mode, mtime_seconds=seconds, uid=uid, gid=gid),
                self._format,
            )

        room = self._sink.reserve(header(0))
        size, digest = self._write_content(chunks)
        self._sink.fill(room, header(size))
        return self._added(member_name, size, digest)

    def add_bytes(
        self, member_name: str, data: bytes, *, mtime: datetime, mode: int = 0o600, uid: int = 0, gid: int = 0
    ) -> Member:
        """Add a small member that is in memory already."""
        return self._add_known(member_name, len(data), iter((data,)), mode, int(mtime.timestamp()), uid, gid)

    def add_file(self, member_name: str, source: Path | int, *, mode: int | None = None, live: bool = False) -> Member:
        """Add a regular file (a path, or an open descriptor) with its owner, mode and time; a link is refused.

        What is added is the file of one moment: a small one that changes meanwhile is read again, a large one is an error
        that a retry may cure. Where `live` (between PostgreSQL's backup start and stop, when replaying the WAL repairs
        such files), exactly the size seen at first is stored instead: cut, or filled with zeros.
        """
        if isinstance(source, Path):
            try:
                descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                raise Refused(f"{source} cannot be read for the backup: {error.strerror}") from error
            try:
                return self._add_open_file(member_name, descriptor, mode, live)
            finally:
                os.close(descriptor)
        return self._add_open_file(member_name, source, mode, live)

    def add_directory(self, name: str, *, mtime: datetime, mode: int = 0o700, uid: int = 0, gid: int = 0) -> None:
        """Add a directory's own entry, unless an earlier step did already."""
        self._add_directory(name, mode, int(mtime.timestamp()), uid, gid)

    def add_tree(
        self,
        member_prefix: str,
        directory: Path | int,
        *,
        exclude: Callable[[str], bool] | None = None,
        follow: Collection[str] = (),
        live: bool = False,
    ) -> list[Member]:
        """Add a directory with all below it under `member_prefix`, keeping owners, modes and times.

        See `archive_tree.walk` for `exclude`, `follow` and links, `add_file` for `live`. What is neither file nor
        directory is passed over with a note.
        """
        first = len(self.members)
        for found in walk(directory, exclude=exclude, follow=follow, live=live):
            name = f"{member_prefix}/{found.name}" if found.name else member_prefix
            state = found.state
            if found.descriptor is None:
                self.notes.append(f"{name} is no regular file and was left out (mode {stat.filemode(state.st_mode)})")
            elif found.is_directory:
                self._add_directory(name, state.st_mode, int(state.st_mtime), state.st_uid, state.st_gid)
            else:
                self._add_open_file(name, found.descriptor, None, live)
        return self.members[first:]

    def add_sized(
        self,
        name: str,
        size: int,
        chunks: Iterator[bytes],
        *,
        mtime: datetime,
        mode: int = 0o600,
        uid: int = 0,
        gid: int = 0,
    ) -> Member:
        """Add a member whose size is known beforehand; raise BackupError where `chunks` give another."""
        return self._add_known(name, size, chunks, mode, int(mtime.timestamp()), uid, gid)

    def append_raw(self, data: bytes) -> None:
        """Append bytes of the tar stream as they are: the top directory and the end blocks of `archive_writer`."""
        self._write(data)

    def finish(self) -> None:
        """End the compressed part and tell the last progress."""
        self._end_compressor()
        self._sink.end()
        self._tell(final=True)

    def give_up(self) -> None:
        """Stop the compressor's threads without writing what it still holds."""
        self._sink.discard = True
        try:
            self._end_compressor()
        finally:
            self._sink.abandon()

    @property
    def written_bytes(self) -> int:
        """How many compressed bytes this segment has written so far."""
        return self._sink.position - self._begins

    def _add_open_file(self, name: str, descriptor: int, mode: int | None, live: bool) -> Member:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise Refused(f"{name} is no regular file (mode {stat.filemode(state.st_mode)})")
        if state.st_size <= CHUNK_BYTES and not live:
            data, state = _read_steadily(name, descriptor)
            size, chunks = len(data), iter((data,))
        else:
            size = state.st_size
            chunks = _read_exactly(name, descriptor, state, live)
        chosen = state.st_mode if mode is None else mode
        return self._add_known(name, size, chunks, chosen, int(state.st_mtime), state.st_uid, state.st_gid)

    def _add_known(
        self, name: str, size: int, chunks: Iterator[bytes], mode: int, mtime_seconds: int, uid: int, gid: int
    ) -> Member:
        self._claim(name)
        self._write_header(name, "file", size, mode, mtime_seconds, uid, gid)
        written, digest = self._write_content(chunks)
        if written != size:
            raise BackupError(f"{name} gave {written} bytes, not the announced {size}", transient=True)
        return self._added(name, size, digest)

    def _add_directory(self, name: str, mode: int, mtime_seconds: int, uid: int, gid: int) -> None:
        if name in self._taken:
            return
        self._claim(name)
        self._write_header(name, "directory", 0, mode, mtime_seconds, uid, gid)
        self.directories.append(name)

    def _write_header(
        self, name: str, kind: EntryKind, size: int, mode: int, mtime_seconds: int, uid: int, gid: int
    ) -> None:
        path = f"{self._top}/{name}"
        self._write(tar_header(path, kind=kind, size=size, mode=mode, mtime_seconds=mtime_seconds, uid=uid, gid=gid))

    def _claim(self, name: str) -> None:
        parts = name.split("/")
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise Refused(
                f"the name {name!r} is not UTF-8, so no manifest can hold it", hint="rename the file"
            ) from None
        if any(part in ("", ".", "..") for part in parts) or any(
            ord(letter) < 32 or letter == "\x7f" for letter in name
        ):
            raise Refused(f"{name!r} is no name for a member of an archive", hint="rename the file")
        if name in self._taken:
            raise Refused(f"the archive has a member {name} already")
        if len(self._taken) >= Limits().members - _OF_OURS:
            raise Refused(
                f"there are more than {Limits().members:,} files and directories to back up, more than an archive may hold",
                hint="is there something below the data directory that is not PostgreSQL's?",
            )
        self._taken.add(name)

    def _write_content(self, chunks: Iterable[BytesLike]) -> tuple[int, str]:
        digest = hashlib.sha256()
        size = 0
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            self._write(chunk)
        self._write(padding(size))
        return size, digest.hexdigest()

    def _write(self, data: BytesLike) -> None:
        if self._compressor is None:
            self._compressor = open_compressor(self._sink, self._format, level=self._level, threads=self._threads)
        self._compressor.write(data)
        self.raw_bytes += len(data)
        self._tell()

    def _added(self, name: str, size: int, digest: str) -> Member:
        member = Member(name=name, bytes=size, sha256=digest)
        self.members.append(member)
        return member

    def _end_compressor(self) -> None:
        compressor, self._compressor = self._compressor, None
        if compressor is not None:
            with signals_deferred():
                compressor.close()

    def _tell(self, *, final: bool = False) -> None:
        if self._on_bytes is not None and (final or self.raw_bytes - self._told_bytes >= _PROGRESS_EVERY_BYTES):
            self._told_bytes = self.raw_bytes
            self._on_bytes(self.raw_bytes, self.written_bytes)


def _read_steadily(name: str, descriptor: int) -> tuple[bytes, os.stat_result]:
    """Read a small file until it did not change while it was read."""
    for _ in range(_STEADY_READ_ATTEMPTS):
        before = os.fstat(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read()
        after = os.fstat(descriptor)
        if _same_content(before, after) and len(data) == after.st_size:
            return data, after
    raise BackupError(f"{name} changed {_STEADY_READ_ATTEMPTS} times while it was read", transient=True)


def _read_exactly(name: str, descriptor: int, announced: os.stat_result, live: bool) -> Iterator[bytes]:
    """Give exactly the announced size."""
    remaining = announced.st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    while remaining > 0:
        chunk = os.read(descriptor, min(CHUNK_BYTES, remaining))
        if not chunk:
            if not live:
                raise BackupError(f"{name} became {remaining} bytes shorter while it was read", transient=True)
            chunk = bytes(min(CHUNK_BYTES, remaining))
        remaining -= len(chunk)
        yield chunk
    if not live and not _same_content(announced, os.fstat(descriptor)):
        raise BackupError(f"{name} changed while it was read", transient=True)


def _same_content(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
