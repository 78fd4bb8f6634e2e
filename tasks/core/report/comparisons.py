"""What was compared with what: named where it is done, told in words wherever it is reported."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

Comparison = Literal[
    "census", "files", "base backup", "recorded census", "census recorded", "rows", "attachments", "B-trees", "B-trees and tables", "keys",
]  # fmt: skip

_WORDS: dict[str, str] = {
    "census": "sequences, large objects, every definition: equal to the backup's census",
    "files": "every file's SHA-256, as it was sealed",
    "base backup": "files and WAL as pg_basebackup wrote them (pg_verifybackup)",
    "recorded census": "rows, sequences, large objects, every definition: equal to the census recorded by an earlier verification of this archive",
    "census recorded": "rows counted and recorded now, for the first time: later verifications compare with this",
    "rows": "each read from its table, but there is no census to compare them with",
    "attachments": "attachments' SHA-256 recomputed",
    "B-trees": "B-trees walked (amcheck)",
    "B-trees and tables": "B-trees against their tables (amcheck)",
    "keys": "key files",
}
# An order for people: what says most about the content first.
_ORDER = tuple(_WORDS)
_ROWS = frozenset({"census", "recorded census", "census recorded", "rows"})

MOMENTS = {
    "complete": "The files were sealed while PostgreSQL was shut down: their content is one definite state.",
    "online": (
        "No census of production's own moment exists: the database is as of the backup's end, recovered from the WAL in the archive, and equal"
        " means equal to the files and WAL as pg_basebackup sealed them."
    ),
}


def counted(compared: Collection[str]) -> bool:
    """Tell whether all rows were read."""
    return bool(_ROWS & set(compared))


def words_of(compared: Collection[str], *, rows: int = 0, tables: int = 0) -> str:
    """Say what was compared, and no more.

    >>> words_of(["files"])
    "every file's SHA-256, as it was sealed; rows were not counted"
    >>> words_of(["census"], rows=1200, tables=3)
    "1,200 rows in 3 tables; sequences, large objects, every definition: equal to the backup's census"
    >>> words_of([])
    'nothing'
    """
    if not compared:
        return "nothing"
    known = sorted(set(compared), key=lambda each: _ORDER.index(each) if each in _ORDER else len(_ORDER))
    words = [_WORDS.get(each, each) for each in known]
    if counted(compared):
        return "; ".join([f"{rows:,} rows in {tables} tables", *words])
    return "; ".join([*words, "rows were not counted"])
