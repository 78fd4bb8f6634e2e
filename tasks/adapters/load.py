"""Load the events of a dump into a new, empty database, over several sessions at once.

The database is nobody's yet, so the load needs no transaction around it: rows of one table go in over two sessions, indexes are built
side by side, and the rows are read back meanwhile for the census that proves what came of it. A load that fails leaves a database that the
caller drops.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import Enum, auto

from tasks.adapters.postgres import Server, Session, session
from tasks.core.census import table_census
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
PIECES_WAITING = 8
BATCH_BYTES = 1 << 20
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
        lanes = [stack.enter_context(_Lane(server, database, number)) for number in range(LANES)]
        targets: list[CopyBegin] = []
        later = _load_rows(main, lanes, events, targets, on_bytes)
        for lane in lanes:
            lane.finish_work()
        logger.debug("All rows are in")
        reader = stack.enter_context(_Lane(server, database, LANES, READING_SETTINGS))
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
    lanes: Sequence[_Lane],
    events: Iterable[DumpEvent],
    targets: list[CopyBegin],
    on_bytes: Callable[[int], None],
) -> list[bytes]:
    """Run everything up to the last row, noting the tables' targets; return the statements that come after the rows."""
    later: list[bytes] = []
    complete = False
    rows: _Rows | None = None
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
                rows = _Rows(event.statement, lanes)
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


def _build_indexes(lanes: Sequence[_Lane], statements: Sequence[bytes]) -> None:
    """Build indexes on all lanes at once, each lane taking the next one when it is free."""
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for statement in statements:
        waiting.put(statement)
    for lane in lanes:
        lane.drain(waiting)
    for lane in lanes:
        lane.finish_work()


class _Signal(Enum):
    """What a lane may be told besides work and rows."""

    END_COPY = auto()
    LEAVE = auto()


class _Rows:
    """The rows of one table, dealt out to the lanes in batches that end where a row ends."""

    def __init__(self, statement: str, lanes: Sequence[_Lane]) -> None:
        self._statement = statement
        self._lanes = lanes
        self._begun: set[int] = set()
        self._current = 0
        self._sent = 0

    def write(self, data: bytes) -> None:
        lane = self._lanes[self._current]
        if self._current not in self._begun:
            self._begun.add(self._current)
            lane.begin_copy(self._statement)
        lane.copy(data)
        self._sent += len(data)
        if self._sent >= BATCH_BYTES and data.endswith(b"\n"):
            self._current = (self._current + 1) % len(self._lanes)
            self._sent = 0

    def end(self) -> None:
        for number in self._begun:
            self._lanes[number].end_copy()


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


class _Lane:
    """A session with a thread that does what it is told in order. An error there is raised at the next thing it is told."""

    def __init__(self, server: Server, database: str, number: int, settings: Mapping[str, str] = LOAD_SETTINGS) -> None:
        self._server, self._database, self._settings = server, database, settings
        self._work: queue.Queue[Callable[[Session], None] | bytes | _Signal] = queue.Queue(PIECES_WAITING)
        self._error: BaseException | None = None
        self._left = False
        self._thread = threading.Thread(target=self._run, name=f"load-{number}", daemon=True)

    def __enter__(self) -> _Lane:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._work.put(_Signal.LEAVE)
        self._thread.join()

    def run(self, statement: bytes) -> None:
        self._tell(lambda opened: opened.run(statement))

    def begin_copy(self, statement: str) -> None:
        def copy(opened: Session) -> None:
            with opened.copy_in(statement) as writer:
                for piece in self._pieces():
                    writer.write(piece)

        self._tell(copy)

    def copy(self, data: bytes) -> None:
        self._tell(data)

    def end_copy(self) -> None:
        self._tell(_Signal.END_COPY)

    def drain(self, statements: queue.SimpleQueue[bytes]) -> None:
        def work(opened: Session) -> None:
            while True:
                try:
                    statement = statements.get_nowait()
                except queue.Empty:
                    return
                begun = time.monotonic()
                opened.run(statement)
                logger.debug("%.2f s: %s", time.monotonic() - begun, statement[:100].decode(errors="replace"))

        self._tell(work)

    def read_back(self, targets: Sequence[CopyBegin], found: dict[str, TableCensus]) -> None:
        def work(opened: Session) -> None:
            opened.execute("SELECT set_config('client_encoding', current_setting('server_encoding'), false)")
            for each in targets:
                found[each.target] = table_census(opened.copy_out(each.reading))

        self._tell(work)

    def finish_work(self) -> None:
        """Wait until all that was told so far is done."""
        done = threading.Event()
        self._tell(lambda _: done.set())
        while not done.wait(0.2):
            self._raise_error()
        self._raise_error()

    def _tell(self, work: Callable[[Session], None] | bytes | _Signal) -> None:
        self._raise_error()
        self._work.put(work)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _pieces(self) -> Iterator[bytes]:
        while isinstance(piece := self._work.get(), bytes):
            yield piece
        if piece is _Signal.LEAVE:
            self._left = True
            raise ArchiveDamaged("the load was given up in the middle of a table")

    def _run(self) -> None:
        try:
            with session(self._server, self._database, purpose="load", settings=self._settings) as opened:
                while (work := self._work.get()) is not _Signal.LEAVE:
                    if callable(work):
                        work(opened)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that tells us what to do
            self._error = error
            # Whoever tells us something before it sees the error must not wait for ever.
            while not self._left and self._work.get() is not _Signal.LEAVE:
                pass
