"""Run `pg_dump` inside the server's container and hand over its bytes as they come.

Always the version that matches the server, no shell, no uncompressed copy on disk. Where we are root beside the engine, the bytes come
through a FIFO that both sides can see, since Docker's own stream costs several times the dump's work (see tests/benchmarks); elsewhere
they come through Docker. Both give the same bytes.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress

from tasks.adapters.engine import programs
from tasks.adapters.engine.exec_stream import Program
from tasks.adapters.postgres.client_login import Login, client_login
from tasks.adapters.postgres.fifo import fifo, read_fifo
from tasks.adapters.postgres.roles_by_catalogue import END_MARK, roles_by_catalogue
from tasks.adapters.postgres.server import major_of_image, server_of
from tasks.adapters.postgres.session import SQL_ASCII, application_name, session
from tasks.core.archive.manifest import Format
from tasks.core.errors import ProgramFailed
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack import session_settings
from tasks.core.stack.installation import Installation

logger = logging.getLogger(__name__)

UNPACKED_BYTES = 32 << 10


def dump_database(
    installation: Installation,
    database: str,
    archive_format: Format,
    *,
    snapshot: str | None,
    limits: DumpLimits,
    without_rows_of: Sequence[str] = (),
    wording: Sequence[str] = (),
) -> Generator[bytes, None, None]:
    """Yield the dump of a database, in `snapshot` where one is given, without the rows of some (quoted) tables.

    `wording` are further options.

    The iterator ends normally only when pg_dump exited with 0 after its last byte; raise ProgramFailed otherwise, with pg_dump's own
    words (transient where a lock was not granted in time). Closing it early ends pg_dump in the container too.
    """
    options = ["--format=plain"] if archive_format == "guide" else ["--format=custom", "--compress=0"]
    # The database may tell its clients to use an encoding that cannot say everything it holds.
    options.append(f"--encoding={_encoding_of(installation, database)}")
    options += wording
    options += [f"--exclude-table-data={table}" for table in without_rows_of]
    if snapshot is not None:
        options.append(f"--snapshot={snapshot}")
    command = [
        "pg_dump",
        f"--username={installation.database.superuser}",
        f"--dbname={connection_string(database)}",
        "--no-password",
        f"--lock-wait-timeout={int(limits.lock_wait_seconds * 1000)}",
        *options,
    ]
    # A FIFO cannot be synced; the archive is.
    yield from _output(installation, command, lambda path: [*command, f"--file={path}", "--no-sync"], limits)


def _encoding_of(installation: Installation, database: str) -> str:
    with server_of(installation) as server, session(server, "postgres", purpose="dump") as opened:
        found = opened.value("SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = %s", (database,))
    if found is None:
        raise ProgramFailed(f"PostgreSQL has no database {database!r}")
    return str(found)


def base_backup(
    installation: Installation, *, label: str, limits: DumpLimits, since: bytes | None = None
) -> Generator[bytes, None, None]:
    """Yield `pg_basebackup`'s tar of the running server's data directory, with the WAL it needs and its manifest.

    With the manifest of an earlier one (`since`) it sends of the tables what has changed since that began.

    The iterator ends normally only when pg_basebackup exited with 0 after its last byte; raise ProgramFailed otherwise.
    Closing it early ends pg_basebackup in the container too.
    """
    command = [
        "pg_basebackup", "--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--no-password",
        f"--username={installation.database.superuser}", f"--label={label}",
    ]  # fmt: skip
    if since is not None:
        command.append("--incremental=/dev/stdin")
    # It can write a tar to its standard output alone; the shell's text is fixed, what varies comes as arguments.
    yield from _output(
        installation, command, lambda path: ["sh", "-c", 'exec "$@" > "$0"', path, *command], limits, since
    )


def _output(
    installation: Installation,
    command: list[str],
    into_fifo: Callable[[str], list[str]],
    limits: DumpLimits,
    stdin: bytes | None = None,
) -> Generator[bytes, None, None]:
    """Yield what a program in the server's container writes, through a FIFO where we can (`into_fifo` gives the command for its path).

    It gets `stdin` first, which it reads before it writes anything.

    Ends normally only when the program exited with 0 after its last byte.
    """
    deadline = time.monotonic() + limits.total_seconds
    login = login_of(installation)
    with fifo(installation) as pipe:
        if pipe is None:
            with login.start(command, stdin=stdin is not None) as program:
                _feed(program, stdin, limits)
                yield from _within(program.chunks(idle_timeout_seconds=limits.idle_seconds), deadline, program)
                _prove_success(program, limits)
            return
        with login.start(into_fifo(pipe.path), user="0", stdin=stdin is not None) as program:
            _feed(program, stdin, limits)
            yield from _within(read_fifo(pipe.descriptor, program, limits.idle_seconds), deadline, program)
            _prove_success(program, limits)


def _feed(program: Program, stdin: bytes | None, limits: DumpLimits) -> None:
    """Give a program its input; one that ends before it has read all of it says why when its end is looked at."""
    if stdin is None:
        return
    with suppress(ProgramFailed):
        program.write(stdin, idle_timeout_seconds=limits.idle_seconds)
    program.close_stdin()


def dump_roles(installation: Installation, *, timeout_seconds: float, encoding: str = "UTF8") -> bytes:
    """Return `pg_dumpall --roles-only`: every role with its password's hash and its memberships, as SQL. Keep it as secret as the dump.

    A role's name is bytes, which each database reads in its own encoding: they are asked for where the dump is taken, so that both
    name a role alike. The text is UTF-8, but for a database in SQL_ASCII (its `encoding`), which has nothing to translate.
    A name that is no text there makes pg_dumpall fail; the catalogue gives the roles all the same.
    """
    try:
        return _dump_roles(installation, [] if encoding == SQL_ASCII else ["--encoding=UTF8"], timeout_seconds)
    except ProgramFailed as error:
        if error.transient:
            raise
        logger.warning(
            "The roles are read from the catalogue, without their settings and comments, for %s", error.message
        )
        with server_of(installation) as server, session(server, installation.database.name, purpose="roles") as opened:
            return roles_by_catalogue(opened)


def _dump_roles(installation: Installation, options: Sequence[str], timeout_seconds: float) -> bytes:
    command = [
        "pg_dumpall", f"--username={installation.database.superuser}", "--no-password", "--roles-only",
        f"--database={connection_string(installation.database.name)}", *options,
    ]  # fmt: skip
    deadline = time.monotonic() + timeout_seconds
    with login_of(installation).start(command) as program:
        # Bytes, for a role's name may be in any encoding.
        text = b"".join(_within(program.chunks(idle_timeout_seconds=timeout_seconds), deadline, program))
        code = program.wait(max(1.0, deadline - time.monotonic()))
        if code != 0:
            raise program.failure(f"failed with exit code {code}", exit_code=code)
        if END_MARK not in text:
            raise program.failure("ended without its end mark")
    return text


def schema_sections(installation: Installation, head: bytes, section: str, *, timeout_seconds: float) -> bytes:
    """Turn the head of a custom dump into the SQL of one section (`pre-data` or `post-data`), by the container's own pg_restore."""
    with programs.start_program(
        installation.postgres.container_id, ["pg_restore", f"--section={section}", "--file=-"], stdin=True
    ) as program:
        try:
            program.write(head, idle_timeout_seconds=timeout_seconds)
        except ProgramFailed as error:
            # pg_restore needs no more than the table of contents and may leave before it has read all of it.
            logger.debug("pg_restore stopped reading: %s", error)
        program.close_stdin()
        text = b"".join(program.chunks(idle_timeout_seconds=timeout_seconds))
        code = program.wait(timeout_seconds)
        if code != 0:
            raise program.failure(f"failed with exit code {code}", exit_code=code)
    return text


def sql_of_custom_dump(
    installation: Installation, chunks: Iterable[bytes], *, idle_seconds: float
) -> Generator[bytes, None, None]:
    """Yield the SQL that the container's own pg_restore writes of a custom dump; it logs in nowhere and runs nothing of it.

    Ends normally only when pg_restore exited with 0 after its last byte; raise ProgramFailed otherwise.
    """
    container = installation.postgres.container_id
    with programs.start_program(container, ["pg_restore", "--file=-"], stdin=True) as program:
        try:
            for chunk in chunks:
                for at in range(0, len(chunk), UNPACKED_BYTES):
                    # What it prints meanwhile is fetched after each piece: unpacked, it is a thousand times as much at most.
                    program.write(memoryview(chunk)[at : at + UNPACKED_BYTES], idle_timeout_seconds=idle_seconds)
                    while program.has_unread:
                        yield program.receive(idle_seconds) or b""
            program.close_stdin()
        except ProgramFailed as error:
            if not program.stderr_tail.strip():
                raise
            logger.debug("pg_restore stopped reading: %s", error)
        yield from program.chunks(idle_timeout_seconds=idle_seconds)
        code = program.wait(idle_seconds)
        if code != 0:
            raise program.failure(f"failed with exit code {code}", exit_code=code)


def login_of(installation: Installation) -> Login:
    """Give the login of PostgreSQL's programs inside the container, without a password in sight; ask the server whether it wants one.

    What database, role and server set does not act on these programs, nor do login event triggers.
    """
    major = major_of_image(installation) or _major_of_programs(installation.postgres.container_id)
    environment = {
        "PGAPPNAME": application_name("dump"),
        "PGOPTIONS": session_settings.program_options(major),
        "PGTZ": "UTC",  # so that the text of a timestamp does not depend on the server's settings
        "PGCONNECT_TIMEOUT": "15",
    }
    superuser = installation.database.superuser
    probe = ["psql", "-w", "-X", "-q", f"--username={superuser}", f"--dbname={connection_string('postgres')}", "-c", ""]
    return client_login(installation, environment, probe=probe)


def _major_of_programs(container: str) -> int:
    """Ask an image that does not say so in its environment."""
    said = programs.run_program(container, ["pg_dump", "--version"], environment={}, timeout_seconds=60).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return int(found[1]) if found else 0


def connection_string(database: str) -> str:
    """Write a database's name so that no character in it (`=`, quotes, spaces) can be taken for anything else."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def _prove_success(program: Program, limits: DumpLimits) -> None:
    code = program.wait(limits.idle_seconds)
    if code == 0:
        return
    stderr = program.stderr_tail
    if "canceling statement due to lock timeout" in stderr:
        failure = program.failure(f"got no lock within {limits.lock_wait_seconds:g} s", exit_code=code, transient=True)
        failure.hint = "a VACUUM FULL or a migration may be running; try later or raise lock_wait_seconds"
        raise failure
    lost = any(
        words in stderr
        for words in ("terminating connection", "server closed the connection", "the database system is")
    )
    raise program.failure(f"failed with exit code {code}", exit_code=code, transient=lost)


def _within(chunks: Iterator[bytes], deadline: float, program: Program) -> Iterator[bytes]:
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise program.failure("did not end within its time limit")
        yield chunk
