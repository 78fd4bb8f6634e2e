"""What an archive's members are to each other: one top directory, each name once, no file that is a directory too, and not too many."""

from __future__ import annotations

from tasks.core.archive.bounded_json import TEXT_LIMIT_BYTES
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.errors import Refused

NAMES_LIMIT_BYTES = 48 << 20
"""How much memory the names of members and of the directories above them may take."""
NAME_OVERHEAD_BYTES = 100
_MANIFEST_BYTES, _MANIFEST_BYTES_PER_MEMBER = 4 << 20, 512


def manifest_limit_bytes(members: int) -> int:
    """Give how large the manifest of so many members may be: in proportion, with room for the census of a large schema.

    >>> manifest_limit_bytes(3)
    4195840
    """
    return min(TEXT_LIMIT_BYTES, _MANIFEST_BYTES + members * _MANIFEST_BYTES_PER_MEMBER)


class Structure:
    """Gathers the names of an archive, and refuses what no archive of ours or of the guide's holds."""

    def __init__(self) -> None:
        self.top = ""
        self._names: set[str] = set()
        self._parents: set[str] = set()
        self._bytes = 0

    def add(self, entry: TarEntry) -> None:
        """Take the next entry; raise Refused where it does not fit to those before it."""
        top = entry.name.partition("/")[0]
        self.top = self.top or top
        if top != self.top:
            raise Refused(f"the archive has more than one top directory: {self.top}, {top}")
        if "/" not in entry.name and not entry.is_directory:
            raise Refused(f"the archive holds the file {entry.name!r} outside its top directory")
        if entry.name in self._names:
            raise Refused(f"the archive holds {entry.name!r} twice")
        if not entry.is_directory and entry.name in self._parents:
            raise Refused(f"the archive holds {entry.name!r} both as a file and as a directory")
        self._add_parents(entry.name if entry.is_directory else entry.name.rpartition("/")[0])
        if not entry.is_directory:
            self._names.add(entry.name)
            self._count(entry.name)

    def _add_parents(self, name: str) -> None:
        """Note a directory and all above it; above one that is known all is known."""
        while name and name not in self._parents:
            if name in self._names:
                raise Refused(f"the archive holds {name!r} both as a file and as a directory")
            self._parents.add(name)
            self._count(name)
            name = name.rpartition("/")[0]

    def _count(self, name: str) -> None:
        self._bytes += len(name) + NAME_OVERHEAD_BYTES
        if self._bytes > NAMES_LIMIT_BYTES:
            raise Refused("the archive's names alone would take all memory: no archive of ours or the guide's has such")
