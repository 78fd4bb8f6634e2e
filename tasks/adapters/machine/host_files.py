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
from tasks.core.archive.manifest import HostLink
from tasks.core.errors import BackupError
from tasks.core.machine.paths import file_member, holds, path_problem

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Larger ones are taken as they are read; small ones until they have held still.
STEADY_BYTES = 1 << 20


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
            file_member(str(each)), mtime=datetime.fromtimestamp(max(found.st_mtime, 0), UTC), mode=found.st_mode,
            uid=found.st_uid, gid=found.st_gid,
        )  # fmt: skip


def _add(part: Segment, above: int, name: str, path: str, gathered: Gathered, without: frozenset[str]) -> None:
    if path in gathered.seen or any(holds(each, path) for each in without):
        return
    gathered.seen.add(path)
    problem = path_problem(path)
    if problem:
        gathered.left_out.append(f"{path!r}: {problem}")
        return
    try:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            _add_link(os.readlink(name, dir_fd=above), path, gathered)
        elif stat.S_ISDIR(found.st_mode):
            _add_directory(part, os.open(name, _DIRECTORY, dir_fd=above), path, gathered, without)
        elif stat.S_ISREG(found.st_mode):
            _add_file(part, os.open(name, _FILE, dir_fd=above), path)
        else:
            gathered.left_out.append(f"{path}: no file, directory or link ({stat.filemode(found.st_mode)})")
    except OSError as error:
        gathered.left_out.append(f"{path}: {error.strerror}")
    except BackupError as error:
        if not error.transient:
            raise
        gathered.left_out.append(f"{path}: {error.message}")


def _add_link(target: str, path: str, gathered: Gathered) -> None:
    if problem := path_problem(target):
        gathered.left_out.append(f"{path}: a link whose target is not kept: {problem}")
    else:
        gathered.links.append(HostLink(path=path, target=target))


def _add_file(part: Segment, descriptor: int, path: str) -> None:
    try:
        part.add_file(file_member(path), descriptor, live=os.fstat(descriptor).st_size > STEADY_BYTES)
    finally:
        os.close(descriptor)


def _add_directory(part: Segment, descriptor: int, path: str, gathered: Gathered, without: frozenset[str]) -> None:
    try:
        found = os.fstat(descriptor)
        part.add_directory(
            file_member(path), mtime=datetime.fromtimestamp(max(found.st_mtime, 0), UTC), mode=found.st_mode,
            uid=found.st_uid, gid=found.st_gid,
        )  # fmt: skip
        for name in sorted(os.listdir(descriptor)):
            _add(part, descriptor, name, f"{path}/{name}", gathered, without)
    finally:
        os.close(descriptor)


def with_targets(paths: Collection[Path]) -> Iterator[Path]:
    """Give paths, and after each that is a link what it leads to: a compose file that is kept elsewhere."""
    for path in paths:
        yield path
        with suppress(OSError):
            if path.is_symlink() and (leads := Path(os.path.realpath(path))).is_file():
                yield leads
