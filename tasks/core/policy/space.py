"""How much room a backup or a restore needs, decided before anything starts."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.core.errors import Refused

# Incompressible bytes written as hex and compressed again come out at about 1.13 of their size (see tests/benchmarks).
DUMP_FACTOR = 1.15
MARGIN_BYTES = 32 << 20
INODES_NEEDED = 16


@dataclass(frozen=True, slots=True)
class Need:
    """What will be written to one place, at most."""

    what: str
    place: str
    bytes: int
    inodes: int = INODES_NEEDED


def dump_archive_bytes(table_bytes: int, other_bytes: int) -> int:
    """Estimate the largest archive of a dump, from the size of the tables without their indexes and of the other files."""
    return int(table_bytes * DUMP_FACTOR) + other_bytes + MARGIN_BYTES


def require_room(need: Need, *, free_bytes: int, free_inodes: int, minimum_free_bytes: int = 0) -> None:
    """Raise Refused where a place has less room than is needed and must stay free."""
    if free_bytes - need.bytes < minimum_free_bytes:
        kept = f" and {minimum_free_bytes:,} bytes must stay free" if minimum_free_bytes else ""
        raise Refused(
            f"{need.what} needs up to {need.bytes:,} bytes in {need.place}, where {free_bytes:,} are free{kept}",
            hint="make room there, or choose another repository",
        )
    if free_inodes < need.inodes:
        raise Refused(
            f"{need.what} needs {need.inodes:,} inodes in {need.place}, where {free_inodes:,} are free",
            hint="many small files fill that file system: remove some",
        )
