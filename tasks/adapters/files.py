"""Files that survive a crash: written whole or not at all, never over another, and known to be on the disk."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.core.errors import BackupError, Refused

TEMPORARY_EXTENSION = ".tmp"
# The kernel itself would begin to write when a tenth of the memory waits for it, and the fsync at the end would wait for all of that.
SEND_BYTES = 32 * 1024 * 1024
_RENAME_NOREPLACE = 1
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
        fsync_directory(directory.parent)


def make_mounted_directory(directory: Path) -> None:
    """Make a directory, and its missing parents, as Docker makes them for a mount: root's, and everybody may pass through.

    PostgreSQL and the application are other users, whose own data may lie further below.
    """
    if not directory.is_dir():
        make_mounted_directory(directory.parent)
        make_directory(directory)
        directory.chmod(0o755)  # whatever the umask


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Give `path` this content whole: readers see the old or the new, also after a crash.

    The temporary file beside it is locked while it is written, so that `reclaim_temporaries` can tell a dead run's from ours.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_EXTENSION}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try_lock(descriptor)
        write_all(descriptor, data)
        os.fsync(descriptor)
        os.replace(temporary, path)
        fsync_directory(path.parent)
    except OSError as error:
        raise write_error(path, error, written_bytes=0) from error
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def reclaim_temporaries(directory: Path) -> list[Path]:
    """Remove what runs that died inside `write_atomically` left in a directory, and name it."""
    removed = []
    for path in sorted(directory.glob(f".*{TEMPORARY_EXTENSION}")):
        if remove_if_unlocked(path):
            removed.append(path)
    return removed


def rename_no_replace(source: Path, target: Path) -> None:
    """Rename a file within one directory tree; raise Refused where the target exists, whoever made it a moment ago.

    Prefers the kernel's own way (renameat2), then a hard link. Where a file system has neither, looks before it renames: the
    one case with a gap, in which the installation's lock is the guard.
    """
    try:
        if _renameat2(source, target):
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


def _renameat2(source: Path, target: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
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
    """Let one process after the other into the block, by a lock file; whoever has waited for `wait_seconds` enters all the same."""
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC) as descriptor:
        deadline = time.monotonic() + wait_seconds
        while not try_lock(descriptor) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield


def remove_if_unlocked(path: Path) -> bool:
    """Remove a file that no living process holds locked, and tell whether that was so."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if not try_lock(descriptor):
            return False
        # Locked now, but perhaps a file of its owner that got its final name in between: never remove another than ours.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
                path.unlink()
                return True
        return False
    finally:
        os.close(descriptor)


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
