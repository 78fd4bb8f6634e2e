"""Walk a directory for an archive: by open descriptors, never through a link, regular files and directories only."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import BackupError, Refused

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LINK_HINT = "store what the link points to as a directory of its own (for pg_wal name it in `follow`); tablespaces are not supported"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing below the directory: its relative name, its state, and a descriptor that is open until the next one is asked for.

    `descriptor` is None for what is no file and no directory (a socket, a FIFO, a device): only a note is to be made of it.
    """

    name: str
    state: os.stat_result
    descriptor: int | None

    @property
    def is_directory(self) -> bool:
        """Tell a directory from a file."""
        return stat.S_ISDIR(self.state.st_mode)


def walk(
    directory: Path | int,
    *,
    exclude: Callable[[str], bool] | None = None,
    follow: Collection[str] = (),
    live: bool = False,
) -> Iterator[Found]:
    """Give the directory itself (named "") and all below it, sorted, each directory before its content.

    `exclude` is asked with relative names (`pg_wal/0000...`); an excluded directory is not entered. Symbolic links raise Refused,
    except those named in `follow`, which must lead to directories. Where `live`, what vanishes between listing and opening is
    passed over, as PostgreSQL's own base backup does; else it is an error worth a retry.
    """
    opened = os.open(directory, _DIRECTORY) if isinstance(directory, Path) else os.dup(directory)
    try:
        yield Found("", os.fstat(opened), opened)
        yield from _walk_below(opened, "", exclude or (lambda _: False), frozenset(follow), live)
    finally:
        os.close(opened)


def _walk_below(
    directory: int, prefix: str, exclude: Callable[[str], bool], follow: frozenset[str], live: bool
) -> Iterator[Found]:
    for entry_name in sorted(os.listdir(directory)):
        name = prefix + entry_name
        if exclude(name):
            continue
        try:
            state = os.stat(entry_name, dir_fd=directory, follow_symlinks=name in follow)
            opened = _open(entry_name, directory, name, state, follow)
        except FileNotFoundError as error:
            if live:
                continue
            raise BackupError(f"{name} vanished while the directory was read", transient=True) from error
        if opened is None:
            yield Found(name, state, None)
            continue
        try:
            found = Found(name, os.fstat(opened), opened)
            yield found
            if found.is_directory:
                yield from _walk_below(opened, name + "/", exclude, follow, live)
        finally:
            os.close(opened)


def _open(entry_name: str, directory: int, name: str, state: os.stat_result, follow: frozenset[str]) -> int | None:
    if stat.S_ISLNK(state.st_mode):
        raise Refused(f"{name} is a symbolic link", hint=_LINK_HINT)
    if stat.S_ISDIR(state.st_mode):
        return os.open(entry_name, _DIRECTORY | (0 if name in follow else os.O_NOFOLLOW), dir_fd=directory)
    if not stat.S_ISREG(state.st_mode):
        return None
    opened = os.open(entry_name, _FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise BackupError(f"{name} was replaced by something else while the directory was read", transient=True)
    return opened
