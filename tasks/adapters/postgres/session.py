"""Sessions with PostgreSQL, in our words; the only module that knows psycopg.

A session goes to the container's own address with the password, so that a login is really proven, never through `trust`. Foreign
exceptions end here, with PostgreSQL's own detail and hint: what waiting could cure (no connection, server starting, lock not granted) is
marked transient. Text is spelled as in `tasks/core/byte_text.py`, so that a database in SQL_ASCII is one like any other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, Protocol

import psycopg
from psycopg import generators, waiting
from psycopg.abc import PQGen
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from tasks.adapters.postgres.server import Server
from tasks.core.byte_text import bytes_of, shown, text_of
from tasks.core.errors import BackupError, ProgramFailed
from tasks.core.quoting import quoted
from tasks.core.row_values import without_literals
from tasks.core.stack import session_settings

logger = logging.getLogger(__name__)

Row = tuple[Any, ...]
# Every cluster has it; what concerns all databases, or one that nobody may be in, is done from there.
MAINTENANCE_DATABASE = "postgres"
CONNECT_TIMEOUT_SECONDS = 10
CANCEL_TIMEOUT_SECONDS = 5.0
# For a statement that reads catalogues or changes a few rows; callers that need more say so.
ANSWER_SECONDS = 600.0
LONG_ANSWER_SECONDS = 24 * 3600.0
# After an interruption: for a cancelled statement to end, for a rollback.
LAST_ANSWER_SECONDS = 2.0
DETAIL_LIMIT = 400  # characters of each of PostgreSQL's additions
SQL_ASCII = "SQL_ASCII"
TEXT_TYPES = ("text", "varchar", "bpchar", "name", '"char"', 0)


class _TextLoader(Loader):
    """Gives text as `text_of` reads it: psycopg would give bytes in SQL_ASCII, or fail at what is no UTF-8."""

    def load(self, data: Buffer) -> str:
        return text_of(bytes(data))


class _TextDumper(Dumper):
    """Sends text as the bytes that it stands for."""

    def dump(self, obj: str) -> bytes:
        raw = bytes_of(obj)
        if b"\0" in raw:
            raise psycopg.DataError("PostgreSQL text cannot contain a NUL byte")
        return raw


class _Connection(psycopg.Connection[Row]):
    """A connection on which no answer is waited for without end.

    A paused container, or one whose disk is away, keeps its connections open.
    """

    answer_seconds = ANSWER_SECONDS

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        limit = self.answer_seconds if timeout is None else timeout
        try:
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=limit)
        except psycopg.errors._WaitTimeout as error:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer came within {limit:g} s") from error
        except psycopg.Error:
            raise
        except BaseException:
            self._cancel_soon(gen)
            raise

    def _cancel_soon(self, gen: PQGen[Any]) -> None:
        """End the running statement after an interruption, or the connection if the server is silent: a rollback would wait."""
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=LAST_ANSWER_SECONDS)
                waiting.wait(gen, self.pgconn.socket, interval=0.1, timeout=LAST_ANSWER_SECONDS)
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            self.pgconn.finish()
        self.answer_seconds = LAST_ANSWER_SECONDS


class Statements(Protocol):
    """Whatever runs statements in one database: a connection of ours, or `psql` where none reaches."""

    def execute(self, statement: str, parameters: Sequence[Any] | None = None) -> list[Row]:
        """Run one statement and return its rows (none for a statement that gives none)."""

    def value(self, statement: str, parameters: Sequence[Any] | None = None) -> Any:
        """Run a statement and return the first column of its first row, None where there is no row."""

    def transaction(self) -> AbstractContextManager[None]:
        """Have the block's statements done as one, or not at all."""


class Session:
    """One connection; `execute` returns all rows, values arrive as Python's types."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> list[Row]:
        """Run one statement and return its rows (none for a statement that gives none)."""
        with _our_errors(statement):
            cursor = self._connection.execute(bytes_of(statement), parameters)
            return cursor.fetchall() if cursor.description else []

    def run(self, statement: bytes) -> None:
        """Run a statement of a dump exactly as it stands: no parameters, no interpretation of percent signs."""
        with _our_errors(text_of(statement[:200])):
            self._connection.execute(statement, prepare=False)

    def parameter_types(self, statement: str) -> list[int]:
        """Ask which types (by number) a statement's parameters have."""
        with _our_errors(statement):
            raw = self._connection.pgconn
            self._answer(lambda: raw.send_prepare(b"", bytes_of(statement)))
            found = self._answer(lambda: raw.send_describe_prepared(b""))
            return [found.param_type(number) for number in range(found.nparams)]

    def run_for_each(self, statement: str, rows: Iterable[Sequence[bytes | None]], *, binary: Collection[int]) -> None:
        """Run a statement that returns nothing with the values of each row: in PostgreSQL's text format, but binary at the given places.

        psycopg's own way would adapt Python's types; these are a dump's bytes, already as the server wants them.
        """
        with _our_errors(statement):
            raw = self._connection.pgconn
            self._answer(lambda: raw.send_prepare(b"", bytes_of(statement)))
            for values in rows:
                formats = [int(number in binary) for number in range(len(values))]
                self._answer(partial(raw.send_query_prepared, b"", values, formats))  # None is NULL

    def _answer(self, send: Callable[[], None]) -> PGresult:
        """Send a request and wait for its answer as psycopg itself does: libpq's own waiting would hold Python's lock, deaf to signals."""
        send()
        results = self._connection.wait(generators.execute(self._connection.pgconn))
        return _require_success(results[-1])

    def value(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
        """Run a statement and return the first column of its first row, None where there is no row."""
        rows = self.execute(statement, parameters)
        return rows[0][0] if rows else None

    @contextmanager
    def copy_in(self, statement: str) -> Iterator[Any]:
        """Give a writer (`write(bytes)`) whose bytes go into the table; leaving normally ends the COPY."""
        with (
            _our_errors(statement),
            self._connection.cursor() as cursor,
            cursor.copy(bytes_of(statement)) as copy,
        ):
            yield copy

    def copy_out(self, statement: str) -> Iterator[memoryview]:
        """Yield the rows that a COPY ... TO STDOUT gives, each as it is sent; each is good until the next is asked for."""
        with (
            _our_errors(statement),
            self._connection.cursor() as cursor,
            cursor.copy(bytes_of(statement)) as copy,
        ):
            while row := copy.read():
                yield memoryview(row)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in one transaction: all of it happens or nothing."""
        with _our_errors("transaction"), self._connection.transaction():
            yield

    def cancel(self) -> None:
        """Ask the server to give up the statement that another thread has running here; no answer is awaited for long."""
        try:
            self._connection.cancel_safe(timeout=CANCEL_TIMEOUT_SECONDS)
        except psycopg.Error as error:
            logger.debug("the running statement could not be cancelled: %s", error)

    @property
    def takes_any_bytes(self) -> bool:
        """Tell whether the session's database is in SQL_ASCII."""
        return self._connection.info.parameter_status("server_encoding") == SQL_ASCII

    @property
    def backend_pid(self) -> int:
        """Give the process id of this session's server process."""
        return self._connection.info.backend_pid


@contextmanager
def session(
    server: Server,
    database: str,
    *,
    purpose: str,
    settings: Mapping[str, str] | None = None,
    answer_seconds: float = ANSWER_SECONDS,
) -> Iterator[Session]:
    """Open a session that commits each statement by itself; close it on leaving.

    What a database, a role or the server sets does not act on it (see `tasks/core/stack/session_settings.py`);
    `settings` come on top. `purpose` shows in pg_stat_activity as `mailarchiver-backup PURPOSE`. No answer is waited
    for longer than `answer_seconds`. Raise BackupError where no login is possible: transient where the server is not
    (yet) there, final where it refuses the password or has no such database.
    """
    with _our_errors(f"connecting to database {database!r}", server):
        connection = _connect(server, database, purpose, settings or {})
        connection.answer_seconds = answer_seconds
        if connection.info.parameter_status("server_encoding") == SQL_ASCII:
            # It translates nothing, but would refuse what is no UTF-8.
            connection.execute(b"SET client_encoding = 'SQL_ASCII'")
        for each in TEXT_TYPES:
            connection.adapters.register_loader(each, _TextLoader)
        connection.adapters.register_dumper(str, _TextDumper)
    try:
        yield Session(connection)
    finally:
        connection.close()


def _connect(server: Server, database: str, purpose: str, settings: Mapping[str, str]) -> _Connection:
    """Connect with everything pinned that this server knows, also where its image told nothing or another version."""
    generations = session_settings.generations(server.major_hint)
    while True:
        generation = generations.pop(0)
        pinned = session_settings.pinned_settings(generation, superuser=server.superuser)
        try:
            connection = _Connection.connect(
                host=server.host,
                port=server.port,
                user=server.user,
                password=server.password,
                dbname=database,
                client_encoding="UTF8",
                application_name=application_name(purpose),
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                keepalives_idle=30,
                options=session_settings.as_options({**pinned, **settings}),
                autocommit=True,
            )
        except psycopg.OperationalError as error:
            if generations and session_settings.names_a_newer_option(str(error)):
                continue
            raise
        known = session_settings.generation_of(connection.info.server_version // 10_000)
        if known <= generation:
            return connection
        connection.close()
        generations = [known]


def application_name(purpose: str) -> str:
    """Name our sessions so that they can be told from the application's, and ended by name."""
    return f"mailarchiver-backup {purpose}"[:63]


def wait_until_ready(server: Server, database: str, *, timeout_seconds: float) -> None:
    """Return once a login over TCP works.

    The image's temporary server during `initdb` answers on its socket only, so a login over TCP is a proof that it is over. Raise the
    last refusal when it never works.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            with session(server, database, purpose="probe") as opened:
                opened.execute("SELECT 1")
                return
        except BackupError as error:
            if not error.transient or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def _our_errors(what: str, server: Server | None = None) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InvalidPassword as error:
        user = server.user if server else "the user"
        raise ProgramFailed(
            f"PostgreSQL refuses the password of {user}",
            hint="the password in the configuration is not the one the database was made with; set it with ALTER ROLE ... PASSWORD",
        ) from error
    except (psycopg.errors.InvalidCatalogName, psycopg.errors.InvalidAuthorizationSpecification) as error:
        raise ProgramFailed(f"PostgreSQL: {_said(error)}", hint=_hint(error), sqlstate=_state(error)) from error
    except psycopg.errors.LockNotAvailable as error:
        raise ProgramFailed(
            f"a lock was not granted in time: {_said(error)}",
            hint="is a VACUUM FULL or a migration running?",
            transient=True,
            sqlstate=_state(error),
        ) from error
    except psycopg.errors.DiskFull as error:
        raise ProgramFailed(
            f"PostgreSQL's disk is full: {_said(error)}", hint="free some space on it", sqlstate=_state(error)
        ) from error
    except psycopg.Error as error:
        away = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        raise ProgramFailed(
            f"PostgreSQL{', while' if away else ' refuses'} {_shown(what)}: {_said(error)}",
            hint=_hint(error),
            transient=away and _is_transient(error),
            sqlstate=_state(error),
        ) from error


def _require_success(result: PGresult) -> PGresult:
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result)
    return result


def _is_transient(error: psycopg.Error) -> bool:
    """Tell whether our own server was away or starting: no SQLSTATE, or 57P0x (shutting down, starting up).

    Class 08 (no connection) is what a server says of *another* one that it asks for us: nothing that a second attempt would cure.
    """
    state = error.sqlstate
    text = str(error)
    if state is None:
        return "password" not in text and "does not exist" not in text
    return state.startswith("57P")


def _said(error: psycopg.Error) -> str:
    """Give what PostgreSQL said, with its detail and where it was."""
    words = error.diag.message_primary or (str(error).strip() or type(error).__name__).splitlines()[0]
    context = (error.diag.context or "").splitlines()[:1]
    # Of data that is no value (class 22), the detail is the data.
    detail = None if _state(error).startswith("22") else error.diag.message_detail
    more = [("DETAIL", detail), ("CONTEXT", context[0] if context else None)]
    told = "; ".join(f"{name}: {' '.join(text.split())[:DETAIL_LIMIT]}" for name, text in more if text)
    return f"{words} ({told})" if told else words


def _hint(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_hint or "").split())[:DETAIL_LIMIT]


def _state(error: psycopg.Error) -> str:
    return error.sqlstate or ""


def _shown(what: str) -> str:
    line = without_literals(shown(" ".join(what.split())))
    return line if len(line) <= 100 else f"{line[:97]}..."


# pg_event_trigger.evtenabled, and how ALTER EVENT TRIGGER says it.
_ENABLED = {"O": "", "R": " REPLICA", "A": " ALWAYS"}


@contextmanager
def unguarded(session: Statements) -> Iterator[None]:
    """Run the block in one transaction that the database's own triggers do not see: neither those of tables nor event triggers.

    A guard against changes by others must not keep a restored account able to reach its mailbox, nor a proof from being
    made. Triggers that are ENABLE ALWAYS still fire, but event triggers are off for all our sessions from PostgreSQL 17
    on, and before it are switched off here and on again.
    """
    with session.transaction():
        guards = []
        if not session.value("SELECT current_setting('event_triggers', true) = 'off'"):
            guards = session.execute(
                "SELECT evtname, evtenabled::text FROM pg_event_trigger WHERE evtenabled <> 'D' ORDER BY 1"
            )
        for name, _ in guards:
            session.execute(f"ALTER EVENT TRIGGER {quoted(name)} DISABLE")
        session.execute("SET LOCAL session_replication_role = replica")
        yield
        for name, enabled in guards:
            session.execute(f"ALTER EVENT TRIGGER {quoted(name)} ENABLE{_ENABLED[enabled]}")
