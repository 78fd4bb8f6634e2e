"""Start PostgreSQL's programs inside the server's container, logged in, without the password lying anywhere.

The official image trusts its own socket. Where an installation asks for a password there too, libpq wants it in a
regular file. That file has lost its name before the first byte of the password is in it: only the program's open
descriptor holds it, so nothing can outlive the program, however it ends.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tasks.adapters.engine import programs
from tasks.adapters.engine.exec_stream import Program
from tasks.core.errors import ProgramFailed
from tasks.core.stack.installation import Installation

PASSWORD_TIMEOUT_SECONDS = 60.0

# $0 is a name nobody can have planted a link at. The line comes on stdin, and `read` takes no byte more than that: the
# rest is the program's. Files of such names that earlier versions left when they were killed hold passwords.
_WITH_PASSWORD = """
umask 077
set -C
for place in /dev/shm "${TMPDIR:-/tmp}" /var/tmp; do
  rm -f "$place"/mailarchiver-backup-*.pgpass 2>/dev/null
  file=$place/$0
  if { true >"$file"; } 2>/dev/null; then break; fi
  file=
done
[ -n "$file" ] || { echo "no directory takes the password file" >&2; exit 125; }
set +C
exec 9>"$file" && rm "$file" && IFS= read -r line && printf '%s\\n' "$line" >&9 || exit 125
unset line
PGPASSFILE=/proc/self/fd/9 exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Login:
    """How a program in the server's container logs in; `password` is None where the socket asks for none."""

    container: str
    environment: Mapping[str, str]
    password: str | None = field(repr=False)

    @contextmanager
    def start(self, command: Sequence[str], *, user: str | None = None, stdin: bool = False) -> Iterator[Program]:
        """Start a program inside the container; it is ended with the block. With `stdin`, its input is the caller's to write and close."""
        asked = self.password is not None
        name = f"mailarchiver-backup-{uuid.uuid4().hex}.pgpass"
        wrapped = ["sh", "-c", _WITH_PASSWORD, name, *command] if asked else list(command)
        with programs.start_program(
            self.container, wrapped, user=user, environment=self.environment, stdin=stdin or asked
        ) as program:
            program.command = tuple(command)
            if self.password is not None:
                line = f"*:*:*:*:{_escaped(self.password)}\n".encode()
                program.write(line, idle_timeout_seconds=PASSWORD_TIMEOUT_SECONDS)
                if not stdin:
                    program.close_stdin()
            yield program

    def run(self, command: Sequence[str], *, timeout_seconds: float) -> str:
        """Run a program of small output to its end and return what it printed; raise ProgramFailed where it did not exit with 0."""
        with self.start(command) as program:
            printed = b"".join(program.chunks(idle_timeout_seconds=timeout_seconds))
            code = program.wait(timeout_seconds)
            if code != 0:
                raise program.failure(f"failed with exit code {code}", exit_code=code)
        return printed.decode(errors="replace")


def client_login(installation: Installation, environment: Mapping[str, str], *, probe: Sequence[str]) -> Login:
    """Find out whether the server's own socket asks for a password, by running `probe`, and give the login that fits."""
    container = installation.postgres.container_id
    try:
        programs.run_program(container, probe, environment=environment, timeout_seconds=60)
    except ProgramFailed as error:
        if "password" not in error.stderr:
            raise
        return Login(container, environment, installation.database.superuser_password)
    return Login(container, environment, None)


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")
