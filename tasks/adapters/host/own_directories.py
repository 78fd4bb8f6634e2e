"""Directories that we made or put aside: known by device and inode, and touched only where they still are the same.

What a name leads to is whatever somebody has put there. So the directory above is opened step by step, never through a link, everything is
done relative to that handle, and a link, another directory, or another owner's is refused.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.host.files import removal_error, rename
from tasks.core.errors import Refused

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ON_THE_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Identity:
    """What a directory is, whatever it is called: device, inode and owner, and the inode of the directory that it stands in."""

    device: int
    inode: int
    owner: int
    parent: int

    @classmethod
    def read(cls, value: object) -> Identity | None:
        """Read an identity from a journal or the list of what is kept; None where none was written down."""
        if not value:
            return None
        fields = value if isinstance(value, dict) else {}
        return cls(*(int(fields[name]) for name in ("device", "inode", "owner", "parent")))


def exists(place: Path) -> bool:
    """Tell whether anything bears this name, a link that leads nowhere too."""
    return os.path.lexists(place)


def identity_of(place: Path) -> Identity:
    """Give the identity of a directory that is about to be renamed; raise Refused where it is a link, or no directory."""
    with _above(place) as above:
        return _identity(above, place)


def require_same(place: Path, identity: Identity | None) -> Identity:
    """Raise Refused where `place` is not the directory that was written down; where nothing was, any true directory will do."""
    with _above(place) as above:
        return _require_same(above, place, identity)


def rename_same(source: Path, target: Path, identity: Identity | None) -> None:
    """Rename a directory to a free name beside it, if it is the one written down; on the disk before the return.

    Raise Refused, with nothing changed, where it is not, or the name is taken.
    """
    with _above(source) as above:
        known = _require_same(above, source, identity)
        if _found(above, target) is not None:
            raise Refused(f"{target} exists already and is not overwritten", hint="see what it is, and move it away")
        rename(source, target, directory=above)
        renamed = _found(above, target)
        if renamed is None or renamed.st_ino != known.inode:
            with suppress(OSError):
                os.rename(target.name, source.name, src_dir_fd=above, dst_dir_fd=above)
            raise Refused(f"{source} was replaced by something else this very moment", hint="see who writes there")
        os.fsync(above)


def remove_same(place: Path, identity: Identity | None) -> None:
    """Remove a directory with all in it; absent is success. Raise Refused, changing nothing, if it is not the one noted."""
    if not exists(place):
        return
    with _above(place) as above:
        known = _require_same(above, place, identity)
        try:
            descriptor = os.open(place.name, _DIRECTORY, dir_fd=above)
            try:
                if os.fstat(descriptor).st_ino != known.inode:
                    raise Refused(
                        f"{place} was replaced by something else this very moment", hint="see who writes there"
                    )
                _empty(descriptor)
            finally:
                os.close(descriptor)
            os.rmdir(place.name, dir_fd=above)
            os.fsync(above)
        except OSError as error:
            raise removal_error(place, error) from error


def require_absent(places: Sequence[Path]) -> None:
    """Raise Refused where a name that something is to be put aside under is taken."""
    for place in places:
        if exists(place):
            raise Refused(f"{place} exists already and is not overwritten", hint="see what it is, and move it away")


def _empty(descriptor: int) -> None:
    with os.scandir(descriptor) as entries:
        for entry in list(entries):
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.name, dir_fd=descriptor)
                else:
                    os.unlink(entry.name, dir_fd=descriptor)


@contextmanager
def _above(place: Path) -> Iterator[int]:
    """Open the directory that `place` stands in, each step without following a link that was put there since its way was looked up."""
    parts = Path(os.path.realpath(place.parent)).parts[1:]
    descriptor = os.open("/", _ON_THE_WAY if parts else _DIRECTORY)
    try:
        for number, part in enumerate(parts, start=1):
            try:
                below = os.open(part, _DIRECTORY if number == len(parts) else _ON_THE_WAY, dir_fd=descriptor)
            except OSError as error:
                raise Refused(
                    f"{place.parent} cannot be opened: {error.strerror}",
                    hint="is it still a directory, and ours to enter?",
                ) from error
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _found(above: int, place: Path) -> os.stat_result | None:
    try:
        return os.stat(place.name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _identity(above: int, place: Path) -> Identity:
    found = _found(above, place)
    if found is None:
        raise Refused(f"{place} is no longer there", hint="was it moved or removed by hand? bring it back to that name")
    if not stat.S_ISDIR(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "no directory"
        raise Refused(
            f"{place} is {what} and is neither renamed nor removed",
            hint="a restore puts only directories aside: see who put it there, and move it away; then bring back the directory, if one was moved",
        )
    return Identity(found.st_dev, found.st_ino, found.st_uid, os.fstat(above).st_ino)


def _require_same(above: int, place: Path, identity: Identity | None) -> Identity:
    found = _identity(above, place)
    if identity is None:
        return found
    # After a reboot a file system may have another number; that of the directory above has it then, too.
    same_device = found.device in (identity.device, os.fstat(above).st_dev)
    if not same_device or (found.inode, found.parent) != (identity.inode, identity.parent):
        raise Refused(
            f"{place} is not the directory that was put there (inode {found.inode}, not {identity.inode})",
            hint="it is neither renamed nor removed: see who replaced it, and move it away; then bring back the one that was moved",
        )
    if found.owner != identity.owner:
        raise Refused(
            f"{place} belongs to user {found.owner}, not to user {identity.owner} as when it was put there",
            hint="see who changed that; where it is right, give it back with chown",
        )
    return found
