"""Load the events of a dump into a new, empty database, over several sessions at once.

The database is nobody's yet, so the load needs no transaction around it: rows of one table go in over two sessions, indexes are built
side by side, and the rows are read back meanwhile for the census that proves what came of it. A load that fails leaves a database that the
caller drops.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from tasks.adapters.load_lane import Lane
from tasks.adapters.load_rows import Rows, binary_table
from tasks.adapters.postgres import Server, Session, session
from tasks.core.dump_events import (
    CopyBegin,
    CopyData,
    CopyEnd,
    DumpComplete,
    DumpEvent,
    LargeObjectBegin,
    LargeObjectData,
    Statement,
)
from tasks.core.dump_statements import is_allowed, is_session_setting, may_run_in_parallel
from tasks.core.errors import ArchiveDamaged, Refused
from tasks.core.manifest import TableCensus

logger = logging.getLogger(__name__)

LANES = 2
LARGE_OBJECT_PIECE_BYTES = 1 << 20
# Sessions of a load: durability comes from the CHECKPOINT at its end, memory helps the index builds.
LOAD_SETTINGS = {
    "synchronous_commit": "off",
    "maintenance_work_mem": "256MB",
    "statement_timeout": "0",
    "lock_timeout": "0",
}
# What pg_dump sets (bin/pg_dump/pg_dump.c, setup_connection), so that rows read back are worded as a dump words them.
READING_SETTINGS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "xmloption": "content",
    "search_path": "",
    "row_security": "off",
    "statement_timeout": "0",
}


def load_dump(
    server: Server, database: str, events: Iterable[DumpEvent], *, on_bytes: Callable[[int], None] = lambda _: None
) -> dict[str, TableCensus]:
    """Load a whole dump into an empty database; return the census of each table's rows (by COPY's target) as they were read back from it.

    Raise Refused for a statement that pg_dump does not write, ArchiveDamaged for a dump that does not end as it should, ProgramFailed where
    PostgreSQL refuses something. `on_bytes` hears of the bytes of rows that were sent.
    """
    with ExitStack() as stack:
        main = stack.enter_context(session(server, database, purpose="load", settings=LOAD_SETTINGS))
        lanes = [stack.enter_context(Lane(server, database, number, LOAD_SETTINGS)) for number in range(LANES)]
        targets: list[CopyBegin] = []
        later = _load_rows(main, lanes, events, targets, on_bytes)
        for lane in lanes:
            lane.finish_work()
        logger.debug("All rows are in")
        reader = stack.enter_context(Lane(server, database, LANES, READING_SETTINGS))
        found: dict[str, TableCensus] = {}
        reader.read_back(targets, found)
        _build_indexes(lanes, [statement for statement in later if may_run_in_parallel(statement)])
        logger.debug("The indexes are built")
        reader.finish_work()
        logger.debug("All rows are read back")
        for statement in later:
            if not may_run_in_parallel(statement):
                main.run(statement)
    return found


def _load_rows(
    main: Session,
    lanes: Sequence[Lane],
    events: Iterable[DumpEvent],
    targets: list[CopyBegin],
    on_bytes: Callable[[int], None],
) -> list[bytes]:
    """Run everything up to the last row, noting the tables' targets; return the statements that come after the rows."""
    later: list[bytes] = []
    complete = False
    rows: Rows | None = None
    large_object: _LargeObject | None = None
    for event in events:
        if large_object is not None and not isinstance(event, LargeObjectData):
            large_object.finish()
            large_object = None
        match event:
            case CopyData(data):
                assert rows is not None
                rows.write(data)
                on_bytes(len(data))
            case CopyBegin():
                rows = Rows(event, binary_table(main, event), lanes)
                targets.append(event)
            case CopyEnd():
                assert rows is not None
                rows.end()
                rows = None
            case Statement(sql, section):
                if not is_allowed(sql):
                    raise Refused(
                        f"the dump holds a statement that pg_dump does not write: {sql[:80].decode(errors='replace')!r}"
                    )
                if section == "post-data" and not is_session_setting(sql):
                    later.append(sql)
                    continue
                main.run(sql)
                if is_session_setting(sql):
                    for lane in lanes:
                        lane.run(sql)
            case LargeObjectBegin(oid):
                large_object = _LargeObject(main, oid)
            case LargeObjectData(data):
                assert large_object is not None
                large_object.write(data)
                on_bytes(len(data))
            case DumpComplete():
                complete = True
            case _:
                pass
    if large_object is not None:
        large_object.finish()
    if not complete:
        raise ArchiveDamaged("the dump has no end mark: it was cut short")
    return later


def _build_indexes(lanes: Sequence[Lane], statements: Sequence[bytes]) -> None:
    """Build indexes on all lanes at once, each lane taking the next one when it is free."""
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for statement in statements:
        waiting.put(statement)
    for lane in lanes:
        lane.drain(waiting)
    for lane in lanes:
        lane.finish_work()


class _LargeObject:
    """One large object, written in pieces of about a megabyte."""

    def __init__(self, main: Session, oid: int) -> None:
        self._main, self._oid = main, oid
        self._offset = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= LARGE_OBJECT_PIECE_BYTES:
            self.finish()

    def finish(self) -> None:
        if self._pending:
            data = b"".join(self._pending)
            self._main.execute("SELECT pg_catalog.lo_put(%s::oid, %s::bigint, %s)", (self._oid, self._offset, data))
            self._offset += len(data)
            self._pending, self._pending_bytes = [], 0
