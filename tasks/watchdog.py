"""The watchdog: a small process that outlives a flow and gives back its stopped services when the flow cannot.

`python -m tasks.watchdog JOURNAL DESCRIPTOR`, started by `tasks/recovery/stopped_services.py` only. It waits on its end of a socket
pair. A farewell: all was given back, it leaves. The end of the line without one: the flow is dead, by whatever cause, and
everything its process left is settled, newest first, by the same code that `recover` runs. It takes the installation's lock
for that, so that it never starts a server under another run's cold copy; a run that was quicker has settled the journal
itself, and the watchdog finds nothing to do.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.host import state
from tasks.adapters.host.journals import Journal, owner_in_name, read_journal
from tasks.adapters.host.locks import installation_lock
from tasks.adapters.host.watchdog_link import FAREWELL, READY
from tasks.core.errors import BackupError, Busy
from tasks.core.plain_text import plain

# Imported now rather than when needed: an upgrade of the packages during the loan must not break us.
from tasks.recovery import stopped_services
from tasks.recovery.recover import Recovered, journals_of, settle_journals

LOG_NAME = "watchdog.log"
# Docker may be away for long (an upgrade, a full disk); after this, `recover` at boot or by its timer goes on.
PATIENCE_SECONDS = 3600.0
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_DEADLY_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def main() -> int:
    """Stand by, and take over where the line ends without a farewell; return 0 once nothing is left to do."""
    # `systemctl stop` signals every process of its unit; this is the one that has to stay until the loan is over.
    for number in _DEADLY_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    path, line = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    journal = read_journal(path)
    if journal is None:
        return 0
    with suppress(OSError):
        line.sendall(READY)
    if _said_farewell(line):
        return 0
    return _take_over(journal)


def _said_farewell(line: socket.socket) -> bool:
    try:
        return line.recv(1) == FAREWELL
    except OSError:
        return False


def _take_over(journal: Journal) -> int:
    began = time.monotonic()
    _note(f"process {journal.pid} ended without giving back ({journal.body.get('reason', '')}); taking over")
    last_message = ""
    attempt = 0
    done: list[Recovered] = []
    while _left_by(journal):
        try:
            results = _settle_all(journal)
        except Busy as busy:
            # Its run settles our journal as its first act, or began before it and ends some day.
            results, message = [], busy.message
        except Exception as error:  # noqa: BLE001 - nobody is left to catch it: note it and try again
            results, message = [], f"{error!s} ({type(error).__name__})"
        else:
            message = "; ".join(each.message for each in results if not each.settled)
        for each in results:
            if each.settled:
                done.append(each)
                _note(
                    f"settled {each.kind} of {each.installation_id} {time.monotonic() - began:.1f} s after: {each.message}"
                )
        if message and message != last_message:
            _note(f"not yet: {message}")
            last_message = message
        if time.monotonic() - began > PATIENCE_SECONDS:
            _note("giving up; `mailarchiver-backup recover` goes on")
            _tell(done)
            return 1
        if message or not results:
            time.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            attempt += 1
    _tell(done)
    return 0


def _tell(done: list[Recovered]) -> None:
    """Tell people what a dead run had left, now that it is settled; nothing that goes wrong with this matters any more."""
    try:
        # Imported here: the watchdog is small while it stands by, and the services run again before anything is told.
        from tasks.run.context import notify_recovered

        notify_recovered(done)
    except Exception as error:  # noqa: BLE001 - nobody is left to catch it
        _note(f"nobody could be told: {error!s} ({type(error).__name__})")


def _settle_all(journal: Journal) -> list[Recovered]:
    with installation_lock(
        journal.installation_directory, stopped_services.GIVING_BACK, wait_seconds=1.0, passing=True
    ):
        return settle_journals(_left_by(journal))


def _left_by(journal: Journal) -> list[Path]:
    """List what the process left for this installation, newest first."""
    try:
        return [path for path in journals_of(journal.installation_directory) if owner_in_name(path) == journal.owner]
    except BackupError:
        # The state directory is away: assume the worst, and ask again.
        return [journal.path]


def _note(message: str) -> None:
    """Append to the log in the state directory; a full disk must not keep us from acting."""
    line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} watchdog {os.getpid()}: {plain(message)}\n"
    with suppress(OSError, BackupError):
        descriptor = os.open(
            state.state_directory() / LOG_NAME,
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
            0o600,
        )
        try:
            os.write(descriptor, line.encode(errors="replace"))
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
