"""Small members of an archive, kept while it is read."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.core.archive.layout import DATA_DIRECTORY, DUMP_KINDS, MANIFEST_NAME
from tasks.core.archive.tar_reader import TarEntry

KEPT_LIMIT_BYTES = 16 << 20
KEPT_OVERHEAD_BYTES = 1 << 10


class SmallMembers:
    """Gathers the members that are neither dump nor data directory, while they are few and small."""

    def __init__(self) -> None:
        self._entries: list[tuple[TarEntry, bytes]] | None = []
        self._bytes = 0

    def wants(self, entry: TarEntry, name: str) -> bool:
        """Tell whether to keep a file's content; one too many and nothing is kept any more."""
        if self._entries is None or not _is_small(name):
            return False
        self._bytes += entry.size + KEPT_OVERHEAD_BYTES
        if self._bytes > KEPT_LIMIT_BYTES:
            self._entries = None
        return self._entries is not None

    def add(self, entry: TarEntry, name: str, content: bytes) -> None:
        """Keep a file or directory."""
        if self._entries is not None and _is_small(name):
            self._entries.append((entry, content))

    def all(self) -> KeptMembers | None:
        """Give what was kept; None where it was too much."""
        return tuple(self._entries) if self._entries is not None else None


def _is_small(name: str) -> bool:
    """Tell whether a name belongs to what is usually small: neither dump, data nor manifest."""
    return name not in DUMP_KINDS and not f"{name}/".startswith(f"{DATA_DIRECTORY}/") and name != MANIFEST_NAME


class KeptStream:
    """Kept members, read as a `TarStream` is."""

    def __init__(self, kept: KeptMembers) -> None:
        self._kept = kept
        self._content = b""

    def entries(self) -> Iterator[TarEntry]:
        for entry, content in self._kept:
            self._content = content
            yield entry

    def content(self) -> Iterator[bytes]:
        yield self._content


KeptMembers = tuple[tuple[TarEntry, bytes], ...]
