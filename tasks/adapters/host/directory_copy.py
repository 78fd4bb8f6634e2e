"""Copy a directory while it is in use, and later only what changed: a copy whose second pass is short.

Owners, modes and times are kept; links are refused as everywhere. Where the file system can (XFS, btrfs), files are
cloned and cost nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.host.files import write_error
from tasks.adapters.host.tree_walk import walk

FICLONE = 0x40049409
PIECE_BYTES = 16 << 20
# A file written within the clock's granularity after it was read would look unchanged: read such files again.
DOUBT_NANOSECONDS = 2_000_000_000

_Seen = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class FirstPass:
    """What the first pass saw of each file, and when it began to read it."""

    files: dict[str, tuple[_Seen, int]]


def copy_directory(source: Path, target: Path, *, on_bytes: Callable[[int], None] = lambda _: None) -> FirstPass:
    """Copy a directory that others are writing to; what vanishes meanwhile is passed over."""
    seen: dict[str, tuple[_Seen, int]] = {}
    total = 0
    target.mkdir(mode=0o700)
    for found in walk(source, follow=("pg_wal",), live=True):
        if found.descriptor is None:
            continue
        place = target / found.name
        if found.is_directory:
            _make_directory(place, found.state)
        else:
            began = time.time_ns()
            state = os.fstat(found.descriptor)
            total += _copy_file(found.descriptor, place, state)
            seen[found.name] = (_identity(state), began)
            on_bytes(total)
    return FirstPass(seen)


def copy_changes(source: Path, target: Path, first: FirstPass) -> int:
    """Bring the copy up to date with a source that nobody writes to any more; return the bytes that had to be copied."""
    present: set[str] = set()
    copied = 0
    for found in walk(source, follow=("pg_wal",)):
        if found.descriptor is None:
            continue
        place = target / found.name
        present.add(found.name)
        if found.is_directory:
            _make_directory(place, found.state)
            continue
        state = os.fstat(found.descriptor)
        before = first.files.get(found.name)
        unchanged = (
            before is not None and before[0] == _identity(state) and state.st_mtime_ns < before[1] - DOUBT_NANOSECONDS
        )
        if not unchanged or not place.exists():
            copied += _copy_file(found.descriptor, place, state)
    for directory, _, names in os.walk(target):
        for name in names:
            path = Path(directory) / name
            if str(path.relative_to(target)) not in present:
                path.unlink()
    return copied


def _identity(state: os.stat_result) -> _Seen:
    return (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def _make_directory(place: Path, state: os.stat_result) -> None:
    place.mkdir(mode=0o700, exist_ok=True)
    _keep(place, state)


def _copy_file(descriptor: int, place: Path, state: os.stat_result) -> int:
    copied = 0
    try:
        target = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.ioctl(target, FICLONE, descriptor)
                copied = state.st_size
            except OSError:  # this file system does not clone; copy within the kernel
                while count := os.copy_file_range(descriptor, target, PIECE_BYTES, copied, copied):
                    copied += count
        finally:
            os.close(target)
    except OSError as error:
        raise write_error(place, error, written_bytes=copied) from error
    _keep(place, state)
    return copied


def _keep(place: Path, state: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(place, state.st_uid, state.st_gid, follow_symlinks=False)
    place.chmod(stat.S_IMODE(state.st_mode))
    os.utime(place, ns=(state.st_atime_ns, state.st_mtime_ns), follow_symlinks=False)
