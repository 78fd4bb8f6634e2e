"""Load a dump by PostgreSQL's own programs in the server's container: `psql` for SQL, `pg_restore` for the custom format.

Slower than our own loader, and they believe what they read: psql runs what a dump tells it to, and takes a dump that
was cut for a whole one. So they are the second way, for dumps that are known to be ours.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from tasks.adapters.engine.exec_stream import Program
from tasks.adapters.host.streams import Tail
from tasks.adapters.postgres.pg_programs import connection_string, login_of
from tasks.core.dump.plain_tablespaces import in_known_tablespaces
from tasks.core.dump.sql import TRAILER
from tasks.core.errors import DumpCutShort, ProgramFailed
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack.installation import Installation

SAID_LIMIT = 1500  # characters


def program_for(*, custom: bool) -> str:
    """Name the program that loads a dump."""
    return "pg_restore" if custom else "psql"


def load_by_program(
    installation: Installation,
    database: str,
    chunks: Iterable[bytes],
    limits: DumpLimits,
    *,
    custom: bool,
    lacking: Collection[str] = (),
    tablespaces: Collection[str] = (),
) -> None:
    """Load a whole dump into an empty database; where the server is `lacking` tablespaces of the dump, the default one takes their place.

    Raise ProgramFailed where the program reports any error, DumpCutShort where a plain dump has no end mark (psql would not notice).
    """
    common = [
        f"--username={installation.database.superuser}",
        f"--dbname={connection_string(database)}",
        "--no-password",
    ]
    if custom:
        command = ["pg_restore", "--exit-on-error", *(["--no-tablespaces"] if lacking else []), *common]
    else:
        command = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", *common]
    if lacking and not custom:
        chunks = in_known_tablespaces(chunks, tablespaces)
    deadline = time.monotonic() + limits.total_seconds
    tail = Tail()
    with login_of(installation).start(command, stdin=True) as program:
        try:
            for chunk in chunks:
                # It takes nothing while it builds an index, so only the whole has a limit.
                program.write(chunk, idle_timeout_seconds=_left(deadline, program))
                tail.see(chunk)
            program.close_stdin()
        except ProgramFailed:
            if not program.stderr_tail.strip():
                raise
        for _ in program.chunks(idle_timeout_seconds=_left(deadline, program)):
            pass
        code = program.wait(_left(deadline, program))
        if code != 0:
            said = " ".join(program.stderr_tail.split())[:SAID_LIMIT] or f"exit code {code}"
            raise ProgramFailed(said, command=program.command, exit_code_seen=code, stderr=program.stderr_tail)
    if not custom and TRAILER not in tail.bytes:
        raise DumpCutShort("the dump has no end mark: it was cut short")


def _left(deadline: float, program: Program) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise program.failure("did not load the dump within the time limit")
    return left
