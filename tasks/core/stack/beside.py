"""Names of what stands beside an installation's database or directory, computed from a word and a stamp."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Word = Literal["before", "undone", "restored"]
NAME_LIMIT_BYTES = 63
_MARK = re.compile(r"(before|undone|restored)[-_](\d{8}_\d{6})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mark:
    """How a thing beside another is marked: `before` a restore, `undone` by a rollback, or `restored` and not in use yet."""

    word: Word
    stamp: str

    def database(self, name: str) -> str:
        """Name a database with this mark beside another."""
        return beside_name(name, f"{self.word}_{self.stamp}")

    def directory(self, place: Path) -> Path:
        """Name a directory with this mark beside another."""
        return place.with_name(f"{place.name}.{self.word}-{self.stamp}")


def stamp_of(now: datetime) -> str:
    """Write a moment as a stamp."""
    return f"{now.astimezone(UTC):%Y%m%d_%H%M%S}"


def beside_name(name: str, suffix: str) -> str:
    """Name a database that stands beside another, within PostgreSQL's 63 bytes."""
    room = NAME_LIMIT_BYTES - len(suffix.encode()) - 1
    return f"{name.encode()[:room].decode(errors='ignore')}_{suffix}"


def mark_of_database(name: str, current: str) -> Mark | None:
    """Read the mark of a database beside `current`; None where it bears none of ours."""
    mark = _mark_at_end(name)
    return mark if mark is not None and mark.database(current) == name else None


def mark_of_directory(path: str | Path, place: Path) -> Mark | None:
    """Read the mark of a directory beside `place`; None where it bears none of ours, or stands elsewhere."""
    mark = _mark_at_end(str(path))
    return mark if mark is not None and str(mark.directory(place)) == str(path) else None


def _mark_at_end(name: str) -> Mark | None:
    found = _MARK.search(name)
    return Mark(found[1], found[2]) if found else None  # type: ignore[arg-type]
