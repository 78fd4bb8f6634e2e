"""Put files of a backup in their places: written beside, renamed into place when whole; what stood there is kept under a dated name."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from tasks.adapters.host.files import write_all, write_error
from tasks.core.archive.manifest import Member
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.errors import ArchiveDamaged, Refused

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
PIECE_BYTES = 1 << 20


def compare_file(path: Path, member: Member) -> Literal["same", "other", "unfit"] | None:
    """Tell how what is at a path compares with a file of a backup, by its content; None where nothing is there."""
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return "other"
        if not stat.S_ISREG(found.st_mode):
            return "unfit"
        return "same" if found.st_size == member.bytes and _sha256(path) == member.sha256 else "other"
    except (FileNotFoundError, NotADirectoryError):
        return None


def compare_link(path: Path, target: str) -> Literal["same", "other", "unfit"] | None:
    """Tell how what is at a path compares with a link of a backup; None where nothing is there."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(found.st_mode):
        return "same" if os.readlink(path) == target else "other"
    return "other" if stat.S_ISREG(found.st_mode) else "unfit"


def place_file(path: Path, entry: TarEntry, member: Member, content: Iterator[bytes], *, aside: str) -> str:
    """Put a file in its place, whole or not at all; return under which name what stood there is kept, "" where nothing did.

    With `aside` "" nothing may stand there. Raise ArchiveDamaged where the content is no longer what was checked.
    """
    with _above(path) as above:
        beside = f".{path.name[:200]}.{secrets.token_hex(4)}.restoring"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=above)
        try:
            digest, written = hashlib.sha256(), 0
            try:
                for piece in content:
                    digest.update(piece)
                    written += write_all(descriptor, piece)
                if os.geteuid() == 0:
                    os.fchown(descriptor, entry.uid, entry.gid)
                os.fchmod(descriptor, entry.mode)
                os.utime(descriptor, (entry.mtime_seconds, entry.mtime_seconds))
                os.fsync(descriptor)
            except OSError as error:
                raise write_error(path, error, written_bytes=written) from error
            finally:
                os.close(descriptor)
            if digest.hexdigest() != member.sha256:
                raise ArchiveDamaged(f"{member.name} changed since the archive was checked")
            return _into_place(above, beside, path, aside)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=above)


def place_link(path: Path, target: str, *, aside: str) -> str:
    """Put a link in its place; see `place_file`."""
    with _above(path) as above:
        beside = f".{path.name[:200]}.{secrets.token_hex(4)}.restoring"
        os.symlink(target, beside, dir_fd=above)
        try:
            return _into_place(above, beside, path, aside)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=above)


def make_place(path: Path, entry: TarEntry) -> None:
    """Make a directory as it was, where it is missing; one that is there is left as it is."""
    if path.is_dir():
        return
    with _above(path) as above:
        os.mkdir(path.name, 0o700, dir_fd=above)
        descriptor = os.open(path.name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            if os.geteuid() == 0:
                os.fchown(descriptor, entry.uid, entry.gid)
            os.fchmod(descriptor, entry.mode)
        finally:
            os.close(descriptor)


def _into_place(above: int, beside: str, path: Path, aside: str) -> str:
    kept = ""
    if aside:
        # First a second name for what stands there, then the exchange at a stroke: at no moment is the place empty.
        kept = f"{path.name}{aside}"
        with suppress(FileNotFoundError):
            os.link(path.name, kept, src_dir_fd=above, dst_dir_fd=above, follow_symlinks=False)
        os.rename(beside, path.name, src_dir_fd=above, dst_dir_fd=above)
    else:
        try:
            os.link(beside, path.name, src_dir_fd=above, dst_dir_fd=above, follow_symlinks=False)
        except FileExistsError:
            raise Refused(f"{path} was made this very moment by somebody else, and is not overwritten") from None
    os.fsync(above)
    return str(path.with_name(kept)) if kept else ""


@contextmanager
def _above(path: Path) -> Iterator[int]:
    os.makedirs(path.parent, mode=0o755, exist_ok=True)
    above = os.open(os.path.realpath(path.parent), _DIRECTORY | os.O_NOFOLLOW)
    try:
        yield above
    finally:
        os.close(above)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    descriptor = os.open(path, _FILE)
    try:
        while piece := os.read(descriptor, PIECE_BYTES):
            digest.update(piece)
    finally:
        os.close(descriptor)
    return digest.hexdigest()
