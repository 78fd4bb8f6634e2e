"""Load the events of a dump into a new, empty database, over several sessions at once.

The database is nobody's yet, so the load needs no transaction around it: rows of one table go in over two sessions, index builds that stand
side by side in the dump run side by side, and the rows are read back meanwhile for the census that proves what came of it. Everything else
happens in the dump's order, for something may depend on it that no catalogue tells of: a constraint that asks another table, an index of a
materialized view. A load that fails leaves a database that the caller drops.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from tasks.adapters.postgres.load_rows import Rows, binary_table
from tasks.adapters.postgres.load_session import LoadSession, finish_work
from tasks.adapters.postgres.load_table import depends_on_foreign_table, table_facts
from tasks.adapters.postgres.server import Server
from tasks.adapters.postgres.session import Session, session
from tasks.core.archive.manifest import TableCensus
from tasks.core.byte_text import shown, text_of
from tasks.core.dump.events import (
    Connect,
    CopyBegin,
    CopyData,
    CopyEnd,
    DumpComplete,
    DumpEvent,
    LargeObjectBegin,
    LargeObjectData,
    Statement,
    Title,
)
from tasks.core.dump.load_words import QUERY_CANCELED
from tasks.core.dump.statements import (
    is_allowed,
    is_session_setting,
    is_time_limit,
    may_run_beside_rows,
    may_run_in_parallel,
    refreshed_view,
)
from tasks.core.errors import DumpCutShort, ProgramFailed, Refused
from tasks.core.policy.limits import DumpLimits

logger = logging.getLogger(__name__)

LANES = 2
GRACE_SECONDS = 60
LARGE_OBJECT_PIECE_BYTES = 1 << 20
LONGEST_TIMEOUT_MILLISECONDS = (1 << 31) - 1
# Sessions of a load: durability comes from the CHECKPOINT at its end, memory helps the index builds.
LOAD_SETTINGS = {
    "synchronous_commit": "off",
    "maintenance_work_mem": "256MB",
}
# What pg_dump sets (bin/pg_dump/pg_dump.c, setup_connection) besides what every session of ours pins, so that rows read
# back are worded as a dump words them.
READING_SETTINGS = {
    "TimeZone": "UTC",
    "search_path": "",
    "row_security": "off",
}


def load_dump(
    server: Server,
    database: str,
    events: Iterable[DumpEvent],
    *,
    limits: DumpLimits | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> dict[str, TableCensus]:
    """Load a whole dump into an empty database; return the census of each plain table as its rows were read back.

    The tables are named as COPY names its target.

    Of other tables (partitioned ones, an extension's) nothing is read back: what a dump holds of them, only pg_dump
    knows. Raise Refused for a statement that pg_dump does not write, ArchiveDamaged for a dump that does not end as it
    should, ProgramFailed where PostgreSQL refuses something or a statement exceeds its limit; its `about` names the
    object. `on_bytes` hears of the bytes of rows that were sent.
    """
    limits = limits or DumpLimits()
    # The server ends a statement by itself, with its own words; this is for one that does not.
    deadline = time.monotonic() + limits.total_seconds + GRACE_SECONDS
    # Only sessions of this load hold locks in the new database, for as long as they read back.
    bounded = {"statement_timeout": milliseconds(limits.total_seconds), "lock_timeout": "0"}
    with ExitStack() as stack:
        main = stack.enter_context(
            session(
                server, database, purpose="load", settings={**LOAD_SETTINGS, **bounded},
                answer_seconds=limits.total_seconds + GRACE_SECONDS,
            )
        )  # fmt: skip

        def lane(number: int, settings: Mapping[str, str]) -> LoadSession:
            return stack.enter_context(
                LoadSession(server, database, number, {**settings, **bounded}, deadline=deadline)
            )

        lanes = [lane(number, LOAD_SETTINGS) for number in range(LANES)]
        loader = _Loader(main, lanes, lambda: lane(LANES, READING_SETTINGS), limits, on_bytes)
        for event in events:
            loader.take(event)
        return loader.finish()


class _Loader:
    """Takes the events one by one, in the dump's order."""

    def __init__(
        self,
        main: Session,
        lanes: Sequence[LoadSession],
        new_reader: Callable[[], LoadSession],
        limits: DumpLimits,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._main, self._lanes, self._limits, self._on_bytes = main, lanes, limits, on_bytes
        self._new_reader = new_reader
        self._reader: LoadSession | None = None
        self._title = Title("", "", "", "")
        self._rows: Rows | None = None
        self._rows_on_their_way = False
        self._large_object: _LargeObject | None = None
        self._builds: list[tuple[str, bytes]] = []
        self._targets: dict[str, CopyBegin] = {}
        self._found: dict[str, TableCensus] = {}
        self._late: set[str] = set()
        self._complete = False

    def take(self, event: DumpEvent) -> None:
        """Do what the next event says, or set it going."""
        if self._large_object is not None and not isinstance(event, LargeObjectData):
            self._large_object.finish()
            self._large_object = None
        match event:
            case CopyData(data):
                assert self._rows is not None
                self._rows.write(data)
                self._on_bytes(len(data))
            case CopyBegin():
                self._begin_rows(event)
            case CopyEnd():
                assert self._rows is not None
                self._rows.end()
                self._rows = None
            case Title():
                self._title = event
            case Statement(sql, _):
                self._statement(sql)
            case LargeObjectBegin(oid):
                self._large_object = _LargeObject(self._main, oid)
            case LargeObjectData(data):
                assert self._large_object is not None
                with _about(self._about):
                    self._large_object.write(data)
                self._on_bytes(len(data))
            case Connect(name):
                raise Refused(
                    f"the dump goes into the database {shown(name)}", hint="only a dump without a manifest may"
                )
            case DumpComplete():
                self._complete = True

    def finish(self) -> dict[str, TableCensus]:
        """Wait until all is done; give the census of the rows that were read back."""
        if not self._complete:
            raise DumpCutShort("the dump has no end mark: it was cut short")
        self._build()
        self._wait_for_rows()
        self._read_back()
        if self._reader is not None:
            finish_work([self._reader])
        logger.debug("All rows are read back")
        return {target: census for target, census in self._found.items() if target not in self._late}

    @property
    def _about(self) -> str:
        return str(self._title)

    def _begin_rows(self, table: CopyBegin) -> None:
        self._build()
        facts = table_facts(self._main, table)
        lanes = self._lanes
        if facts.asks_others:
            # A constraint calls a function, which may look at any table before it: those must be complete, and these rows come in order.
            self._wait_for_rows()
            lanes = lanes[:1]
        if self._reader is not None:  # reading back has begun already; what comes this late is read by pg_dump
            self._late.add(table.target)
        elif facts.is_plain:
            self._targets[table.target] = table
        self._rows = Rows(table, binary_table(self._main, table), lanes, about=self._about)
        self._rows_on_their_way = True

    def _statement(self, sql: bytes) -> None:
        if not is_allowed(sql):
            raise Refused(f"the dump holds a statement that pg_dump does not write: {text_of(sql[:80])!r}")
        if is_time_limit(sql):  # a dump takes all limits away; ours hold
            return
        if may_run_in_parallel(sql):
            self._builds.append((self._about, sql))
            return
        self._build()
        if is_session_setting(sql):
            self._main.run(sql)
            for lane in self._lanes:
                lane.run(sql)
            return
        if not may_run_beside_rows(sql):
            self._wait_for_rows()
        with _about(self._about):
            view = refreshed_view(sql)
            if view is not None and depends_on_foreign_table(self._main, view):
                self._refresh(sql)
            else:
                self._main.run(sql)

    def _refresh(self, sql: bytes) -> None:
        """Refresh a view of another server's tables, which may be away: on staging it always is."""
        seconds = min(self._limits.foreign_seconds, self._limits.total_seconds)
        self._main.execute("SELECT set_config('statement_timeout', %s, false)", (milliseconds(seconds),))
        try:
            self._main.run(sql)
        except ProgramFailed as error:
            if error.sqlstate == QUERY_CANCELED:
                error.message += f" (after {seconds:g} s: it reads another server's tables; is that server there?)"
            raise
        self._main.execute(
            "SELECT set_config('statement_timeout', %s, false)", (milliseconds(self._limits.total_seconds),)
        )

    def _wait_for_rows(self) -> None:
        if self._rows_on_their_way:
            finish_work(self._lanes)
            self._rows_on_their_way = False
            logger.debug("All rows so far are in")

    def _build(self) -> None:
        """Run the index builds that were gathered on all lanes at once, each lane taking the next one when it is free."""
        if not self._builds:
            return
        self._wait_for_rows()
        self._read_back()
        waiting: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        for each in self._builds:
            waiting.put(each)
        self._builds = []
        for lane in self._lanes:
            lane.drain(waiting)
        finish_work(self._lanes)
        logger.debug("The indexes so far are built")

    def _read_back(self) -> None:
        """Have the rows of plain tables read back beside all that follows."""
        if self._reader is None and self._targets:
            self._reader = self._new_reader()
            self._reader.read_back(list(self._targets.values()), self._found)


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


@contextmanager
def _about(what: str) -> Iterator[None]:
    try:
        yield
    except ProgramFailed as error:
        error.about = error.about or what
        raise


def milliseconds(seconds: float) -> str:
    """Give a time limit as PostgreSQL takes it: never 0, which is none, and no more than it knows."""
    return str(max(1, min(int(seconds * 1000), LONGEST_TIMEOUT_MILLISECONDS)))
