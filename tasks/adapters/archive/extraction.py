"""Bring members of an archive onto the disk, below a new directory, following no link on the way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.adapters.archive.reader import CheckedArchive, entries_of
from tasks.adapters.host.files import SEND_BYTES, make_directory, send_to_disk, sync_file_system, write_all, write_error
from tasks.adapters.host.streams import watched
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.errors import ArchiveDamaged, Refused


class Extraction:
    """A new directory that fills up with members; made by `extraction` only.

    Every component is made or opened without following a link.
    """

    def __init__(self, root: int, keep_owners: bool) -> None:
        self._root = root
        self._keep_owners = keep_owners
        self._directories: list[tuple[str, TarEntry]] = []

    def add(self, relative: str, entry: TarEntry, pieces: Iterator[bytes]) -> None:
        """Make a file or a directory; `relative` is its name below the new directory ("" for that itself)."""
        if entry.is_directory:
            os.close(_make_directories(self._root, relative))
            self._directories.append((relative, entry))
            return
        parent, _, name = relative.rpartition("/")
        directory = _make_directories(self._root, parent)
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
            try:
                written = sent = 0
                for piece in pieces:
                    written += write_all(descriptor, piece)
                    if written - sent >= SEND_BYTES:
                        send_to_disk(descriptor, sent, written - sent)
                        sent = written
                if self._keep_owners:
                    _set_attributes(descriptor, entry)
            finally:
                os.close(descriptor)
        finally:
            os.close(directory)

    def finish(self) -> None:
        """Give the directories their attributes, last, since a directory's time changes with every file made in it; sync everything."""
        if self._keep_owners:
            for relative, entry in reversed(self._directories):
                directory = _make_directories(self._root, relative)
                try:
                    _set_attributes(directory, entry)
                finally:
                    os.close(directory)
        sync_file_system(self._root)


@contextmanager
def extraction(target: Path, *, keep_owners: bool) -> Iterator[Extraction]:
    """Make a new directory and give what fills it; on the disk when the block ends normally.

    Owners, modes and times are kept where `keep_owners` (owners only by root); else files are 0600 and directories 0700, our own. Raise
    Refused where the target exists, BackupError where it cannot be written.
    """
    if target.exists():
        raise Refused(f"{target} exists already; archives are extracted into a new directory")
    make_directory(target)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        opened = Extraction(root, keep_owners)
        yield opened
        opened.finish()
    except OSError as error:
        raise write_error(target, error, written_bytes=0) from error
    finally:
        os.close(root)


def extract(archive: CheckedArchive, what: str | Collection[str], target: Path, *, keep_owners: bool) -> None:
    """Extract into a new directory: everything below the directory `what` (without its name), or the members named in it.

    Raise ArchiveDamaged where a member is no longer what was checked.
    """
    expected = {member.name: member for member in archive.members}
    wanted = [f"{what}/"] if isinstance(what, str) else what
    with extraction(target, keep_owners=keep_owners) as made, entries_of(archive, *wanted) as stream:
        for entry in stream.entries():
            name = entry.name.partition("/")[2]
            relative = below(name, what)
            if relative is None:
                continue
            digest = hashlib.sha256()
            sealed = expected.get(name)
            if not entry.is_directory and (sealed is None or sealed.bytes != entry.size):
                raise ArchiveDamaged(f"{name} changed since the archive was checked")
            made.add(relative, entry, watched(stream.content(), digest.update))
            if sealed is not None and digest.hexdigest() != sealed.sha256:
                raise ArchiveDamaged(f"{name} changed since the archive was checked")


def below(name: str, what: str | Collection[str]) -> str | None:
    """Give a member's name relative to the directory `what`, or as it is where it is one of several names; None for any other member."""
    if isinstance(what, str):
        return name[len(what) + 1 :] if f"{name}/".startswith(f"{what}/") else None
    return name if name in what else None


def _make_directories(root: int, relative: str) -> int:
    """Open a directory below the root, making what is missing; the caller closes it."""
    current = os.dup(root)
    for part in relative.split("/"):
        if not part:
            continue
        with suppress(FileExistsError):
            os.mkdir(part, 0o700, dir_fd=current)
        deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
        os.close(current)
        current = deeper
    return current


def _set_attributes(descriptor: int, entry: TarEntry) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, entry.uid, entry.gid)
    os.fchmod(descriptor, entry.mode & 0o777)
    os.utime(descriptor, (entry.mtime_seconds, entry.mtime_seconds))
