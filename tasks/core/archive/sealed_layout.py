"""How an encrypted archive is laid out: a plain tar of age files, in the order of the archive that they decrypt to.

Each part begins (the first one ends), inside its encryption, with a mark that binds it to its place: the backup's name, a secret that all parts of
this one archive share, and the part's number. gzip and zstd pass over it (an empty member, a skippable frame), so `tar`, `age` and a loop of the shell are enough to
read the archive. Where a part is written whose size is known only later, room is reserved; a filler takes what is left of it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Literal

from tasks.core.archive.manifest import Format
from tasks.core.archive.names import EXTENSIONS, SEALED_EXTENSION, time_in_name
from tasks.core.archive.tar_writer import BLOCK_BYTES, padding, tar_header
from tasks.core.errors import ArchiveDamaged

PART_BYTES = 1 << 30
"""How much of the archive one part holds: a size that every place to keep files takes."""
PART_LIMIT_BYTES = 2 * PART_BYTES
ROOM_TO_SPARE_BYTES = 2048
"""age's files of the same content differ in length: the library adds a random stanza of up to some two hundred bytes."""
SECRET_BYTES = 16
MARK_LIMIT_BYTES = 1024
LAST_NUMBER = 999_999

_GZIP_MARK = struct.Struct("<4sIBBH2sH")
_GZIP_EMPTY = b"\x03\x00" + bytes(8)
_ZSTD_SKIPPABLE = b"\x50\x2a\x4d\x18"
_MARK = re.compile(rb"(?P<name>[^ \n]{1,200}) (?P<secret>[0-9a-f]{32}) (?P<number>[0-9]{6})")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part belongs: the archive (by name, format and the secret that its parts share) and the number in it."""

    name: str
    format: Format
    secret: str = field(repr=False)
    number: int

    @property
    def directory(self) -> str:
        """The directory that the parts unpack to."""
        return self.name + EXTENSIONS[self.format] + SEALED_EXTENSION.removesuffix(".tar")

    def mark(self) -> bytes:
        """Give what the part's plaintext begins with."""
        text = f"{self.name} {self.secret} {self.number:06}".encode()
        if self.format == "fast":
            return _ZSTD_SKIPPABLE + struct.pack("<I", len(text)) + text
        return _GZIP_MARK.pack(b"\x1f\x8b\x08\x04", 0, 0, 0xFF, len(text) + 4, b"mP", len(text)) + text + _GZIP_EMPTY

    def header(self, kind: Literal["age", "filler"], size: int) -> bytes:
        """Give the tar header of the part, or of the filler after it: nothing in it is left to anybody's choice."""
        moment = time_in_name(self.name)
        return tar_header(
            f"{self.directory}/{self.number:06}.{kind}",
            size=size,
            mtime_seconds=int(moment.timestamp()) if moment else 0,
        )


def read_mark(head: bytes) -> tuple[Place, int] | None:
    """Read the mark at the beginning of a part's plaintext: the place, and how long the mark is; None where there is none."""
    for archive_format, offset in (("guide", _GZIP_MARK.size), ("fast", 8)):
        found = _MARK.match(head, offset)
        if found is None:
            continue
        name = found["name"].decode(errors="replace")
        format_: Format = "guide" if archive_format == "guide" else "fast"
        place = Place(name, format_, found["secret"].decode(), int(found["number"]))
        if head.startswith(place.mark()):
            return place, len(place.mark())
    return None


def room_bytes(trial: int) -> int:
    """Give the room to reserve for an age file like one of `trial` bytes, with its header and that of the filler."""
    content = trial + ROOM_TO_SPARE_BYTES
    return BLOCK_BYTES + content + len(padding(content)) + BLOCK_BYTES


def fill_room(place: Place, sealed: bytes, room: int) -> bytes | None:
    """Give the bytes that fill a room: the part, and a filler; None where the part is too large for it."""
    part = place.header("age", len(sealed)) + sealed + padding(len(sealed))
    left = room - len(part) - BLOCK_BYTES
    return part + place.header("filler", left) + bytes(left) if left >= 0 else None


@dataclass(frozen=True, slots=True)
class Entry:
    """What a header of the outer tar announces."""

    kind: Literal["age", "filler"]
    size: int


def read_entry(block: bytes, directory: str, number: int) -> Entry:
    """Read a header: that of part `number`, or of a filler after the part before; raise ArchiveDamaged for anything else."""
    split = directory_in(block)
    try:
        size = int(block[124:135], 8)
    except ValueError:
        size = -1
    if split is not None and 0 <= size <= PART_LIMIT_BYTES:
        for kind, of in (("age", number), ("filler", number - 1)):
            known: Literal["age", "filler"] = "age" if kind == "age" else "filler"
            if directory == split.directory and block == Place(split.name, split.format, "", of).header(known, size):
                return Entry(known, size)
    raise ArchiveDamaged(
        f"part {number} is not where it belongs: it is missing, out of order or altered",
        hint="the encrypted archive was altered or damaged: take another, `mailarchiver-backup list` shows them",
    )


def directory_in(block: bytes) -> Place | None:
    """Read whose part a header of the outer tar announces; None where it is no such header. The number is not looked at."""
    name = block[:100].split(b"\0")[0].decode(errors="replace")
    found = re.fullmatch(r"([^/ \n]{1,80}?)(\.tar\.gz|\.tar\.zst)\.age/[0-9]{6}\.(?:age|filler)", name)
    if found is None or block[257:262] != b"ustar":
        return None
    return Place(found[1], "guide" if found[2] == EXTENSIONS["guide"] else "fast", "", 0)
