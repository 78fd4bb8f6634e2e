"""The few kinds of error, each caught by somebody who then does something different.

Every error says what is, with the value seen, and carries a hint: one thing worth trying.
"""

from __future__ import annotations

from tasks.core.plain_text import plain
from tasks.core.row_values import without_rows


class BackupError(Exception):
    """Tell what went wrong, and what to try.

    `transient` is true only where waiting could cure it: the retry policy in `tasks/step.py` asks
    nothing else. `exit_code` is what the command line leaves with.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", transient: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.transient = transient

    def __str__(self) -> str:
        """Give the message and, where there is one, the hint on a line of its own, with nothing in it that a terminal obeys.

        Used wherever an exception is reported: logs, tracebacks, the states of Prefect's runs.
        """
        return plain(f"{self.message}\nHINT: {self.hint}" if self.hint else self.message)

    def add_note(self, note: str) -> None:
        """Add a line to what a traceback shows."""
        super().add_note(plain(note))


class UsageError(BackupError):
    """A wrong parameter or setting: nothing was touched, and trying again changes nothing."""

    exit_code = 2


class Refused(BackupError):
    """A guard said no before anything was touched: unfit archive, ambiguous stack, too little room."""


class NameTaken(Refused):
    """Something of that name exists, perhaps made a moment ago; another name will do. What is there was left alone."""


class NoMailArchiver(Refused):
    """A compose project is of something else: none of its services is a Mail Archiver."""


class ArchiveDamaged(Refused):
    """The archive's bytes are not what was sealed: truncated, altered, or never complete."""


class NoKey(Refused):
    """No key at hand opens an encrypted archive: that says nothing of its content, neither good nor bad."""


class DumpCutShort(ArchiveDamaged):
    """A dump ends before its end: what its reader gave so far is not all."""


class Busy(BackupError):
    """Another run holds the installation's lock; it was left alone."""

    exit_code = 75


class ProgramFailed(BackupError):
    """An external program did not prove that it succeeded.

    What it said of rows is left out. Keeps the command (its secrets removed), the exit code (None: killed or unknown)
    and the end of its stderr; of what PostgreSQL refused, its error code (`sqlstate`), and which object of a dump it
    was `about` ("TABLE DATA public.a"), where that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        command: tuple[str, ...] = (),
        exit_code_seen: int | None = None,
        stderr: str = "",
        hint: str = "",
        transient: bool = False,
        sqlstate: str = "",
    ) -> None:
        super().__init__(without_rows(message), hint=without_rows(hint), transient=transient)
        self.sqlstate = sqlstate
        self.about = ""
        self.command = command
        self.exit_code_seen = exit_code_seen
        self.stderr = without_rows(stderr)
