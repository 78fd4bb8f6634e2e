"""The files below a guest's root directory: measured, and listed with all that they are but their content."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.host.files import opened, sync_file_system
from tasks.core.errors import BackupError, Refused
from tasks.core.guests.listing import entry_line


@dataclass(frozen=True, slots=True)
class Listing:
    """The lines of all files, in the order of their paths, what they take on the disk, and how many sockets were passed over."""

    lines: tuple[bytes, ...]
    bytes: int
    sockets: int


def listing_of(root: Path) -> Listing:
    """List everything below a directory, itself too; sockets, which only their program makes, are passed over.

    Raise BackupError where something changes meanwhile, Refused where another file system is mounted there.
    """
    lines: list[tuple[bytes, bytes]] = []
    firsts: dict[int, bytes] = {}
    counted: set[int] = set()
    total = sockets = 0
    base = os.fsencode(root)
    for path, found in _walk(base):
        name = b"." + path.removeprefix(base)
        if stat.S_ISSOCK(found.st_mode):
            sockets += 1
            continue
        first = b""
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            first = firsts.setdefault(found.st_ino, name)
        if found.st_ino not in counted:
            total += found.st_blocks * 512
        if found.st_nlink > 1:
            counted.add(found.st_ino)
        lines.append((name, _line(path, name, found, b"" if first == name else first)))
    return Listing(tuple(line for _, line in sorted(lines)), total, sockets)


def measured(root: Path) -> int:
    """Give about how many bytes the files below a directory take, also while something changes them."""
    return sum(
        found.st_blocks * 512 // (1 if stat.S_ISDIR(found.st_mode) else max(1, found.st_nlink))
        for _, found in _walk(os.fsencode(root), tolerant=True)
    )


def _walk(root: bytes, *, tolerant: bool = False) -> Iterator[tuple[bytes, os.stat_result]]:
    """Give every path in an order that is always the same, a directory before what is in it; no link is followed."""
    waiting = [root]
    try:
        device = os.lstat(root).st_dev
        yield root, os.lstat(root)
        while waiting:
            place = waiting.pop()
            try:
                with os.scandir(place) as entries:
                    inside = sorted(entries, key=lambda each: each.name)
                for each in inside:
                    found = each.stat(follow_symlinks=False)
                    yield each.path, found
                    if found.st_dev != device:
                        raise Refused(
                            f"another file system is mounted at {os.fsdecode(each.path)}, below the guest's root directory",
                            hint="unmount it for the backup: what is mounted there is no part of the guest",
                        )
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(each.path)
            except (FileNotFoundError, NotADirectoryError):
                if not tolerant:
                    raise
    except OSError as error:
        raise BackupError(
            f"{os.fsdecode(error.filename or root)} cannot be looked at: {error.strerror}",
            hint="does something change the guest's files while it is stopped?",
        ) from error


def _line(path: bytes, name: bytes, found: os.stat_result, first: bytes) -> bytes:
    try:
        attributes = {
            each: os.getxattr(path, each, follow_symlinks=False) for each in os.listxattr(path, follow_symlinks=False)
        }
        more = os.readlink(path) if stat.S_ISLNK(found.st_mode) else b""
    except OSError as error:
        raise BackupError(f"{os.fsdecode(path)} cannot be read: {error.strerror}") from error
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        more = b"%d:%d" % (os.major(found.st_rdev), os.minor(found.st_rdev))
    return entry_line(
        name, mode=found.st_mode, owner=found.st_uid, group=found.st_gid, size=found.st_size, moment_ns=found.st_mtime_ns,
        more=more, attributes=attributes, first=first,
    )  # fmt: skip


def rename_host(root: Path, former: str, name: str) -> bool:
    """Put another name into a guest's /etc/hostname where the former one stands there; no link is followed. Tell whether it did."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with (
            opened(root / "etc", os.O_RDONLY | os.O_DIRECTORY | flags) as etc,
            opened("hostname", os.O_RDWR | flags, dir_fd=etc) as file,
        ):
            if os.read(file, 256).strip() != former.encode():
                return False
            os.ftruncate(file, 0)
            os.pwrite(file, f"{name}\n".encode(), 0)
    except OSError:
        return False
    return True


def bring_to_disk(directory: Path) -> None:
    """Bring everything of a directory's file system to the disk."""
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as descriptor:
        sync_file_system(descriptor)
