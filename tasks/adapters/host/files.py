"""Files that survive a crash: written whole or not at all, never over another, and known to be on the disk."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tasks.adapters.host.outside_files import CONFIGURATION, read_outside
from tasks.core.errors import BackupError, Refused

logger = logging.getLogger(__name__)

TEMPORARY_EXTENSION = ".tmp"
# The kernel itself would begin to write when a tenth of the memory waits for it, and the fsync at the end would wait for all of that.
SEND_BYTES = 32 * 1024 * 1024
REMOVAL_TRIES = 5
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_AT_FDCWD = -100
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

BytesLike = bytes | bytearray | memoryview


def write_all(descriptor: int, data: BytesLike) -> int:
    """Write every byte at the descriptor's position and return how many; a short write is continued, not ignored."""
    view = memoryview(data)
    total = view.nbytes
    written = os.write(descriptor, view)
    while written < total:
        written += os.write(descriptor, view[written:])
    return total


def send_to_disk(descriptor: int, position: int, count: int) -> None:
    """Have what was written there go to the disk while more is being made, without waiting for it."""
    os.posix_fadvise(descriptor, position, count, os.POSIX_FADV_DONTNEED)


def fsync_directory(directory: Path) -> None:
    """Bring a directory's names to the disk, so that a new, renamed or removed file stays so after a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Bring everything of the descriptor's file system to the disk: for thousands of files far cheaper than one by one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
    elif libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def make_directory(directory: Path, mode: int = 0o700) -> None:
    """Make a directory, and its missing parents, with this mode; one that is there already is left as it is."""
    if directory.is_dir():
        return
    if not directory.parent.exists():
        make_directory(directory.parent, mode)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=mode)
        directory.chmod(mode)  # whatever the umask: a directory of metrics is for others to read
        fsync_directory(directory.parent)


def make_mounted_directory(directory: Path) -> None:
    """Make a directory, and its missing parents, as Docker makes them for a mount: root's, and everybody may pass through.

    PostgreSQL and the application are other users, whose own data may lie further below.
    """
    if not directory.is_dir():
        make_mounted_directory(directory.parent)
        make_directory(directory, 0o755)


def write_atomically(path: Path, data: bytes, mode: int = 0o600, *, like: os.stat_result | None = None) -> None:
    """Give `path` this content whole: readers see the old or the new, also after a crash.

    With `like`, the file gets the owner and mode of that. The temporary file beside it is locked while it is written, so that
    `reclaim_temporaries` can tell a dead run's from ours.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}{TEMPORARY_EXTENSION}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise write_error(path, error, written_bytes=0) from error
    try:
        try_lock(descriptor)
        write_all(descriptor, data)
        if like is not None:
            os.fchown(descriptor, like.st_uid, like.st_gid)
            mode = stat.S_IMODE(like.st_mode)
        os.fchmod(descriptor, mode)  # whatever the umask
        os.fsync(descriptor)
        os.replace(temporary, path)
        fsync_directory(path.parent)
    except OSError as error:
        raise write_error(path, error, written_bytes=0) from error
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def create_whole(path: Path, data: bytes, mode: int = 0o600) -> bool:
    """Make a file with this content, whole and on the disk, where there is none of that name; tell whether it was made."""
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}{TEMPORARY_EXTENSION}")
    write_atomically(temporary, data, mode)
    try:
        rename_no_replace(temporary, path)
    except Refused:
        return False
    except OSError as error:
        raise write_error(path, error, written_bytes=0) from error
    finally:
        temporary.unlink(missing_ok=True)
    return True


def keep_copy(path: Path, kept: Path) -> Path:
    """Keep a file (or link) under a second name beside the first; return that name, with a number where it was taken.

    The file never loses its own name.

    By a hard link where the file system has them, else by a copy. On the disk before the return.
    """
    candidate, number = kept, 1
    while True:
        try:
            os.link(path, candidate, follow_symlinks=False)
        except FileExistsError:
            number += 1
            candidate = kept.with_name(f"{kept.name}-{number}")
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS or path.is_dir():
                raise BackupError(f"{path} cannot be kept as {candidate}: {error.strerror}") from error
            content, found = read_outside(path, CONFIGURATION)
            write_atomically(candidate, content, like=found)
        fsync_directory(path.parent)
        return candidate


def reclaim_temporaries(directory: Path, name: str = "*") -> list[Path]:
    """Remove what runs that died inside `write_atomically` left in a directory (of one file's name where one is given), and name it."""
    pattern = f".*{TEMPORARY_EXTENSION}" if name == "*" else f".{glob.escape(name)}.????????{TEMPORARY_EXTENSION}"
    return [path for path in sorted(directory.glob(pattern)) if remove_if_unlocked(path)]


def rename_no_replace(source: Path, target: Path) -> None:
    """Rename a file within one directory tree; raise Refused where the target exists, also if it was made a moment ago.

    Prefers the kernel's own way (renameat2), then a hard link. Where a file system has neither, looks before it renames: the
    one case with a gap, in which the installation's lock is the guard.
    """
    try:
        if _renameat2(source, target, _RENAME_NOREPLACE):
            return
        os.link(source, target)
    except FileExistsError:
        raise Refused(f"{target} exists already and is not overwritten", hint="move it away, or try again") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise Refused(f"{target} exists already and is not overwritten") from error
        os.rename(source, target)
        return
    os.unlink(source)


def exchange_names(one: Path, other: Path) -> None:
    """Exchange two names of one file system at a stroke; raise BackupError, with nothing changed, where it cannot."""
    try:
        if not _renameat2(one, other, _RENAME_EXCHANGE):
            raise BackupError(f"{one} and {other} cannot be exchanged: this file system knows no such act")
    except OSError as error:
        raise BackupError(f"{one} and {other} cannot be exchanged: {error.strerror}") from error
    for place in {one.parent, other.parent}:
        fsync_directory(place)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))


def try_lock(descriptor: int) -> bool:
    """Take the kernel's lock on an open file without waiting; it ends with the last descriptor, so with the process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def one_at_a_time(path: Path, *, wait_seconds: float) -> Iterator[None]:
    """Let one process after the other into the block, by a lock file; a process that has waited for `wait_seconds` enters all the same."""
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC) as descriptor:
        deadline = time.monotonic() + wait_seconds
        while not try_lock(descriptor) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield


def remove_if_unlocked(path: Path) -> bool:
    """Remove a file that no living process holds locked, and tell whether that was so."""
    with claimed_file(path) as ours:
        if ours:
            path.unlink(missing_ok=True)
        return ours


@contextlib.contextmanager
def claimed_file(path: Path) -> Iterator[bool]:
    """Hold a file that no living process holds locked, for as long as the block lasts; give False where there is none, or it is in use.

    A link, or a file that is none of ours to open, is nobody's leftover and gives False too.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        logger.debug("%s is not claimed: %s", path, error)
        yield False
        return
    try:
        # Locked now, but perhaps a file of its owner that got its final name in between: never take another for it.
        yield try_lock(descriptor) and names_file(path, descriptor)
    finally:
        os.close(descriptor)


def names_file(path: Path, descriptor: int) -> bool:
    """Tell whether a path still is the name of an open file: the same device and inode."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def remove_tree(place: Path) -> None:
    """Remove a directory with all in it; absent is success. Never through a link: of a link, or a file, only that itself goes, and is told.

    Raise BackupError, with what could not be removed and why, where the file system refuses.
    """
    try:
        found = os.lstat(place)
        if stat.S_ISDIR(found.st_mode):
            _remove_directory(place)
        else:
            leads = f"a link to {os.readlink(place)}" if stat.S_ISLNK(found.st_mode) else "a file"
            logger.warning("%s was %s where a directory was expected; that alone was removed", place, leads)
            os.unlink(place)
    except FileNotFoundError:
        return
    except OSError as error:
        raise removal_error(place, error) from error


def removal_error(place: Path, error: OSError) -> BackupError:
    """Say in our words that something could not be removed, and why."""
    where = error.filename if isinstance(error.filename, str) and "/" in error.filename else place
    hint = "remove it by hand; what has to be removed cannot be used before that"
    if error.errno == errno.EBUSY:
        hint = "something is mounted there: umount it, then run `mailarchiver-backup recover`"
    elif error.errno in (errno.EPERM, errno.EACCES):
        hint = "is it immutable (lsattr), or another user's? then run `mailarchiver-backup recover`"
    return BackupError(f"{where} cannot be removed: {error.strerror or error}", hint=hint)


def _remove_directory(place: Path) -> None:
    for _ in range(REMOVAL_TRIES - 1):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(place, onerror=_raise_with_path)
            return
        # Somebody else removes files of the same directory: what is gone is what was wanted.
    shutil.rmtree(place, onerror=_raise_with_path)


def _raise_with_path(_: object, path: str, raised: tuple[object, BaseException, object]) -> NoReturn:
    """Raise what stood in the way, by its whole path: it was removed relative to an open directory, and names its last part alone."""
    error = raised[1]
    if isinstance(error, OSError):
        error.filename = path
    raise error


def rename(source: Path, target: Path, *, directory: int | None = None) -> None:
    """Rename within one file system, replacing what the system lets us replace; raise BackupError, in words, where it refuses.

    With `directory`, the open directory that both stand in, only the last part of each path counts.
    """
    try:
        if directory is None:
            os.rename(source, target)
        else:
            os.rename(source.name, target.name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        hint = "look at both places; then run `mailarchiver-backup recover`"
        if error.errno == errno.EXDEV:
            hint = "they lie on two file systems: something is mounted in between"
        elif error.errno == errno.EBUSY:
            hint = "one of them is a mount point: umount it, or let the compose file mount a directory below it"
        raise BackupError(f"{source} cannot be renamed to {target}: {error.strerror or error}", hint=hint) from error


def free_space(path: Path) -> tuple[int, int]:
    """Give the bytes and inodes an ordinary user may still take on the path's file system.

    The path need not exist, nor be ours to look at: its nearest parent that does and is answers. A file system that does not count inodes
    gives a huge number.
    """
    for place in (path, *path.parents):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            found = os.statvfs(place)
            inodes = found.f_favail if found.f_files else 2**62
            return found.f_bavail * found.f_frsize, inodes
    raise FileNotFoundError(f"{path} is relative to a directory that is gone")


def write_error(path: Path, error: OSError, *, written_bytes: int) -> BackupError:
    """Say in our words that writing `path` failed, with what was written and what is free."""
    free_bytes, free_inodes = -1, -1
    with contextlib.suppress(OSError):
        free_bytes, free_inodes = free_space(path)
    hint = "look at the kernel's log and the disk's health; the target is not to be trusted before that"
    if error.errno in _FULL:
        hint = (
            "make room there, prune older backups, or choose another repository (quotas and file size limits count too)"
        )
    return BackupError(
        f"writing {path} failed after {written_bytes} bytes: {error.strerror or error} "
        f"({free_bytes} bytes and {free_inodes} inodes free)",
        hint=hint,
    )


@contextlib.contextmanager
def opened(path: Path | str, flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> Iterator[int]:
    """Open a file without following a link at its end, and close it afterwards."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
