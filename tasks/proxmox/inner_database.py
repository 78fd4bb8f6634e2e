"""A database inside a restored guest, by `psql` in its server's container: no connection reaches a guest without a network.

So each statement is a program of its own. What `tasks/adapters/stack/mail_archiver.py` does to a database is done here by the same
statements.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tasks.adapters.proxmox.guest_shell import Shell
from tasks.core.errors import BackupError
from tasks.core.quoting import quoted_literal
from tasks.core.stack.guest_stacks import InnerStack
from tasks.core.stack.session_settings import as_options, pinned_settings

Row = tuple[Any, ...]
ANSWER_SECONDS = 600.0
_MAINTENANCE = "postgres"
_READS = ("SELECT",)


class InnerDatabase:
    """Statements in one database of a guest. A transaction is gathered, and sent as one at its end.

    What is read within a transaction is read after its statements so far, in one that is taken back. That is the same only while nobody
    else writes: the application is stopped.
    """

    def __init__(
        self, shell: Shell, stack: InnerStack, database: str, *, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._shell, self._stack, self._database = shell, stack, database
        self._answer_seconds = answer_seconds
        self._options = ""
        self._gathered: list[str] | None = None

    def execute(self, statement: str, parameters: Sequence[Any] | None = None) -> list[Row]:
        """Run one statement and return its rows (none for one that changes something)."""
        written = _written(statement, parameters)
        if not written.startswith(_READS):
            if self._gathered is None:
                self._psql(f"{written};")
            else:
                self._gathered.append(written)
            return []
        # Each row as an object, in one line whatever is in it.
        asked = f"SELECT coalesce(json_agg(row_to_json(q))::text, '[]') FROM ({written}) q;"
        before = "".join(f"{each};\n" for each in self._gathered or ())
        told = self._psql(f"BEGIN;\n{before}{asked}\nROLLBACK;" if before else asked)
        try:
            return [tuple(each.values()) for each in json.loads(told)]
        except (ValueError, AttributeError, TypeError):
            raise BackupError(
                f"what the database {self._database} in the guest tells cannot be understood: {told[:60]!r}",
                hint="is it PostgreSQL's own psql that runs there?",
            ) from None

    def value(self, statement: str, parameters: Sequence[Any] | None = None) -> Any:
        """Run a statement and return the first column of its first row, None where there is no row."""
        rows = self.execute(statement, parameters)
        return rows[0][0] if rows else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Have the block's statements done as one, or not at all."""
        gathered: list[str] = []
        self._gathered = gathered
        try:
            yield
        finally:
            self._gathered = None
        if gathered:
            self._psql("BEGIN;\n" + "".join(f"{each};\n" for each in gathered) + "COMMIT;")

    def pin(self) -> None:
        """Pin what the database's own settings shall not decide, as our sessions do; raise BackupError where the server does not answer."""
        number = self._psql("SELECT current_setting('server_version_num');").strip()
        if not number.isdecimal():
            raise BackupError(f"the server in the guest tells no version: {number[:60]!r}")
        self._options = as_options(pinned_settings(int(number) // 10_000))

    def _psql(self, script: str) -> str:
        # Without a password: inside the container 127.0.0.1 is trusted by the official image, as the socket is.
        # Terse: the details of an error are rows, and those may hold a mailbox's password.
        # The database's name is not an argument: there, one with an equals sign would be a whole connection string.
        program = 'export PGDATABASE="$1"; exec psql -X -q -A -t -w -v ON_ERROR_STOP=1 -v VERBOSITY=terse -U "${POSTGRES_USER:-postgres}" -f -'
        options = ["-e", f"PGOPTIONS={self._options}"] if self._options else []
        words = ["docker", "exec", "-i", *options, self._stack.postgres.id, "sh", "-c", program, "sh", self._database]
        said = self._shell.try_run(words, given=script, seconds=self._answer_seconds)
        if said.code != 0:
            raise BackupError(
                f"psql in the guest failed in the database {self._database} with exit code {said.code}: {said.last_words}",
                hint="see the log of its PostgreSQL in a guest restored by hand",
            )
        return said.out


def databases_with(shell: Shell, stack: InnerStack, table: str) -> list[str]:
    """Name the databases of a server that hold a table: the application's own, and former ones that a restore has kept."""
    found = []
    names = InnerDatabase(shell, stack, _MAINTENANCE).execute(
        "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
    )
    for (name,) in names:
        there = InnerDatabase(shell, stack, str(name)).value(
            "SELECT 1 FROM pg_class WHERE relname = %s LIMIT 1", (table,)
        )
        if there is not None:
            found.append(str(name))
    return found


def _written(statement: str, parameters: Sequence[Any] | None) -> str:
    """Write a statement with its parameters as literals.

    >>> _written("SELECT %s", ("it's",))
    "SELECT 'it''s'"
    """
    if parameters is None:
        return statement.strip()
    pieces = statement.strip().split("%s")
    values = [quoted_literal(str(each)) for each in parameters]
    return "".join(part + value for part, value in zip(pieces, [*values, ""], strict=True))
