"""Which names an archive may hold: the allow-list that stands between a stranger's archive and the disk."""

from __future__ import annotations

from typing import Literal

from tasks.core.errors import ArchiveDamaged, Refused

NAME_BYTES_MAXIMUM = 4096
_COMPONENT_BYTES_MAXIMUM = 255


def checked_path(raw: bytes, *, directory: bool) -> str:
    """Turn an entry's raw name into a clean relative path; "" is the archive's own root (`./`).

    Raise Refused for everything that could lead elsewhere or hide: absolute, `..`, empty components, control characters, bytes
    that are not UTF-8, overlong. A leading `./` is allowed, for tar writes it where it is told to pack `.`.

    >>> checked_path(b"./top/database.sql", directory=False)
    'top/database.sql'
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(f"the archive holds a name that is not UTF-8: {raw[:100]!r}") from None
    path = text
    if directory:
        path = path.removesuffix("/")
    if path == "." and directory:
        return ""
    path = path.removeprefix("./")
    components = path.split("/")
    if len(raw) > NAME_BYTES_MAXIMUM or any(len(part.encode()) > _COMPONENT_BYTES_MAXIMUM for part in components):
        raise Refused(f"the archive holds a name of {len(raw)} bytes: {text[:60]!r}...")
    if any(part in ("", ".", "..") for part in components):
        raise Refused(f"the archive holds the name {text[:200]!r}, which could lead out of its place")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        raise Refused(f"the archive holds a name with control characters: {text[:200]!r}")
    return path


class NameTree:
    """Remember the names of an archive, and refuse those that do not fit together.

    One top directory; no name twice; nothing below a file.
    """

    def __init__(self) -> None:
        self.top = ""
        self._kinds: dict[str, Literal["file", "directory", "implied"]] = {}

    def add(self, path: str, *, directory: bool) -> None:
        """Take one more entry, or raise Refused."""
        top, _, below = path.partition("/")
        if not below and not directory:
            raise Refused(
                f"{path} lies at the archive's root, not in one top directory",
                hint="archives hold one directory with all in it",
            )
        if self.top and top != self.top:
            raise Refused(f"the archive has more than one top directory: {self.top} and {top}")
        self.top = top
        known = self._kinds.get(path)
        if known in ("file", "directory"):
            raise Refused(f"the archive holds {path} twice")
        if known == "implied" and not directory:
            raise Refused(f"the archive holds {path} as a directory and as a file")
        self._kinds[path] = "directory" if directory else "file"
        slash = path.rfind("/")
        while slash > 0:
            parent = path[:slash]
            kind = self._kinds.setdefault(parent, "implied")
            if kind == "file":
                raise Refused(f"the archive holds {parent} as a file and {path} below it")
            if kind == "directory":
                break
            slash = path.rfind("/", 0, slash)


def parse_number(field: bytes, what: str) -> int:
    """Read a number of a tar header, octal or GNU's base 256; raise ArchiveDamaged where it is neither, or negative.

    >>> parse_number(b"0000644\\x00", "mode")
    420
    """
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise ArchiveDamaged(f"a tar header holds a negative or absurd {what}: {field.hex()}")
        value = int.from_bytes(field[1:], "big")
        if value >= 1 << 63:
            raise ArchiveDamaged(f"a tar header holds an absurd {what}: {value}")
        return value
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if not digits:
        return 0
    if any(digit not in b"01234567" for digit in digits):
        raise ArchiveDamaged(f"a tar header holds {field!r} as its {what}")
    return int(digits, 8)
