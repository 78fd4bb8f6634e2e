"""Deal a table's rows out to several sessions: by COPY, and where rows hold large binary values, by a statement for each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from tasks.adapters.postgres.load_session import LoadSession
from tasks.adapters.postgres.session import Session
from tasks.core.dump.events import CopyBegin
from tasks.core.dump.wide_rows import WIDEST_ROW_BYTES, Values, insert_statement, is_wide, values_of_rows
from tasks.core.errors import ProgramFailed

logger = logging.getLogger(__name__)

BATCH_BYTES = 1 << 20
BYTEA = 17  # src/include/catalog/pg_type.dat


@dataclass(frozen=True, slots=True)
class BinaryTable:
    """A table with binary columns: the statement that inserts a row, and those columns' places."""

    copy: str
    insert: str
    binary: frozenset[int]


def binary_table(main: Session, table: CopyBegin) -> BinaryTable | None:
    """Ask PostgreSQL whether a COPY's target has columns of type bytea; None where it has none, or takes no INSERT."""
    insert = insert_statement(table.target)
    if insert is None:
        return None
    try:
        types = main.parameter_types(insert)
    except ProgramFailed as error:
        logger.debug("All rows of %s go by COPY: %s", table.target, error.message)
        return None
    binary = frozenset(number for number, each in enumerate(types) if each == BYTEA)
    return BinaryTable(table.statement, insert, binary) if binary else None


class Rows:
    """The rows of one table, dealt out to the lanes in batches that end where a row ends."""

    def __init__(
        self, table: CopyBegin, binary: BinaryTable | None, lanes: Sequence[LoadSession], *, about: str
    ) -> None:
        self._statement = table.statement
        self._about = about
        self._binary = binary
        self._lanes = lanes
        self._begun: set[LoadSession] = set()
        self._turn = 0
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._in_wide_row = False

    def write(self, data: bytes) -> None:
        """Take some bytes of rows; a row may go on in the next."""
        self._pieces.append(data)
        self._bytes += len(data)
        ends = data.endswith(b"\n")
        if self._in_wide_row or self._binary is None or (not ends and self._bytes > WIDEST_ROW_BYTES):
            self._copy()
            self._in_wide_row = not ends
        if ends and self._bytes >= BATCH_BYTES:
            self._end_batch()

    def end(self) -> None:
        """Have what is left go in, and end what was begun."""
        self._end_batch()
        for lane in list(self._begun):
            self._end_copy(lane)

    @property
    def _lane(self) -> LoadSession:
        return self._lanes[self._turn % len(self._lanes)]

    def _end_batch(self) -> None:
        """Send what was gathered, by the way that is quicker, and let the next lane have its turn."""
        rows = b"".join(self._pieces)
        if rows and self._binary is not None and is_wide(rows):
            self._end_copy(self._lane)
            self._lane.do(partial(insert_rows, table=self._binary, rows=rows), about=self._about)
            self._pieces = []
        self._copy()
        self._bytes = 0
        self._turn += 1

    def _copy(self) -> None:
        if self._pieces and self._lane not in self._begun:
            self._begun.add(self._lane)
            self._lane.begin_copy(self._statement, about=self._about)
        for piece in self._pieces:
            self._lane.copy(piece)
        self._pieces = []

    def _end_copy(self, lane: LoadSession) -> None:
        if lane in self._begun:
            self._begun.remove(lane)
            lane.end_copy()


def insert_rows(opened: Session, table: BinaryTable, rows: bytes) -> None:
    """Insert complete rows one by one, their binary values as they are; what is spelled unusually goes by COPY."""
    unusual: list[bytes] = []

    def usual() -> Iterator[Values]:
        for each in values_of_rows(rows, table.binary):
            if isinstance(each, bytes):
                unusual.append(each)
            else:
                yield each

    opened.run_for_each(table.insert, usual(), binary=table.binary)
    if unusual:
        with opened.copy_in(table.copy) as writer:
            for row in unusual:
                writer.write(row)
