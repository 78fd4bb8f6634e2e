"""Read files of this host for a backup: regular files, directories and links, none of which is ever followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.segment import Segment
from tasks.core.archive.system_contents import HostLink
from tasks.core.machine.paths import file_member, holds, path_problem

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Larger ones are taken as they are read; small ones until they have held still.
STEADY_BYTES, STEADY_TRIES = 1 << 20, 5


@dataclass
class Gathered:
    """What was put into an archive: the links, and in words what was left out; `seen` keeps one path from being taken twice."""

    links: list[HostLink] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def add_paths(part: Segment, paths: Collection[Path], gathered: Gathered, *, without: Collection[Path] = ()) -> None:
    """Add each path with all below it; what cannot be read, or is nothing of the kind, is noted and left out."""
    for path in map(without_links_above, paths):
        try:
            above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            gathered.left_out.append(f"{path}: {error.strerror}")
            continue
        try:
            if not path_problem(str(path)):
                _add_those_above(part, path)
            _add(part, above, path.name, str(path), gathered, frozenset(str(each) for each in without))
        finally:
            os.close(above)


def without_links_above(path: Path) -> Path:
    """Give a path by the directories that it really lies in; what it names itself may be a link."""
    return Path(os.path.realpath(path.parent)) / path.name


def _add_those_above(part: Segment, path: Path) -> None:
    """Add the entries of the directories above, so that they come back with their owners and modes where they are missing."""
    for each in reversed(path.parents[:-1]):
        found = os.stat(each)
        part.add_directory(
            file_member(str(each)), mtime=_moment(found), mode=found.st_mode, uid=found.st_uid, gid=found.st_gid
        )


def _add(
    part: Segment,
    above: int,
    name: str,
    path: str,
    gathered: Gathered,
    without: frozenset[str],
    device: int | None = None,
) -> None:
    """Add what a name in an open directory is. What fails to be read is noted; what fails to be written ends the backup."""
    if path in gathered.seen or any(holds(each, path) for each in without):
        return
    gathered.seen.add(path)
    if problem := path_problem(path):
        gathered.left_out.append(f"{path!r}: {problem}")
        return
    try:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            _add_link(os.readlink(name, dir_fd=above), path, gathered)
            return
        if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
            gathered.left_out.append(f"{path}: no file, directory or link ({stat.filemode(found.st_mode)})")
            return
        descriptor = os.open(name, _DIRECTORY if stat.S_ISDIR(found.st_mode) else _FILE, dir_fd=above)
    except OSError as error:
        gathered.left_out.append(f"{path}: {error.strerror}")
        return
    try:
        state = os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            _add_directory(part, descriptor, path, gathered, without, device)
        elif stat.S_ISREG(state.st_mode):
            _add_file(part, descriptor, path, gathered)
        else:
            gathered.left_out.append(f"{path}: was replaced while it was looked at")
    finally:
        os.close(descriptor)


def _add_link(target: str, path: str, gathered: Gathered) -> None:
    if problem := path_problem(target):
        gathered.left_out.append(f"{path}: a link whose target is not kept: {problem}")
    else:
        gathered.links.append(HostLink(path=path, target=target))


def _add_file(part: Segment, descriptor: int, path: str, gathered: Gathered) -> None:
    """Add a file: a small one as it is when it holds still, a large one as it is read, at the size that it had at first."""
    if os.fstat(descriptor).st_size > STEADY_BYTES:
        part.add_file(file_member(path), descriptor, live=True)
        return
    try:
        content, state = _read_steadily(descriptor)
    except OSError as error:
        gathered.left_out.append(f"{path}: {error.strerror}")
        return
    if content is None:
        gathered.left_out.append(f"{path}: changed {STEADY_TRIES} times while it was read")
        return
    part.add_bytes(
        file_member(path), content, mtime=_moment(state), mode=state.st_mode, uid=state.st_uid, gid=state.st_gid
    )


def _read_steadily(descriptor: int) -> tuple[bytes | None, os.stat_result]:
    """Read a small file that did not change meanwhile; None where it would not hold still."""
    for _ in range(STEADY_TRIES):
        before, pieces, size = os.fstat(descriptor), [], 0
        while piece := os.pread(descriptor, STEADY_BYTES, size):
            pieces.append(piece)
            size += len(piece)
            if size > 2 * STEADY_BYTES:
                break
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) and size == after.st_size:
            return b"".join(pieces), after
    return None, after


def _add_directory(
    part: Segment, descriptor: int, path: str, gathered: Gathered, without: frozenset[str], device: int | None
) -> None:
    found = os.fstat(descriptor)
    if device is not None and found.st_dev != device:
        gathered.left_out.append(f"{path}: another file system is mounted there; name it by itself if it is wanted")
        return
    try:
        names = sorted(os.listdir(descriptor))
    except OSError as error:
        gathered.left_out.append(f"{path}: {error.strerror}")
        return
    part.add_directory(file_member(path), mtime=_moment(found), mode=found.st_mode, uid=found.st_uid, gid=found.st_gid)
    for name in names:
        _add(part, descriptor, name, f"{path}/{name}", gathered, without, found.st_dev)


def _moment(state: os.stat_result) -> datetime:
    return datetime.fromtimestamp(max(state.st_mtime, 0), UTC)


def with_targets(paths: Collection[Path]) -> Iterator[Path]:
    """Give paths, and after each that is a link what it leads to: a compose file that is kept elsewhere."""
    for path in paths:
        yield path
        with suppress(OSError):
            if path.is_symlink() and (leads := Path(os.path.realpath(path))).is_file():
                yield leads
