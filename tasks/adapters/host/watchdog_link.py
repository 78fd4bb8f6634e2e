"""Our end of the line to a watchdog process.

The line is a socket pair whose near end only this process holds. When this process dies, however it dies, the kernel closes
it, and the watchdog reads the end of the line without a farewell.
"""

from __future__ import annotations

import os
import socket
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tasks
from tasks.adapters.host.journals import OpenJournal, open_journal
from tasks.adapters.host.processes import start_detached
from tasks.core.errors import Refused

READY = b"R"
FAREWELL = b"F"
READY_TIMEOUT_SECONDS = 20.0

_links: weakref.WeakSet[WatchdogLink] = weakref.WeakSet()


class WatchdogLink:
    """The near end of the line. `pid` is the watchdog's."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        self._line = line
        self.pid = pid
        _links.add(self)

    def release(self) -> None:
        """Tell the watchdog that all was given back: it leaves without doing anything. A dead one is no error."""
        with suppress(OSError):
            self._line.sendall(FAREWELL)
        self.close()

    def close(self) -> None:
        """Let go of the line. Without a farewell before, the watchdog takes over."""
        self._line.close()


def _forget_in_child() -> None:
    # A forked child's copy would keep the line open after our death.
    for link in list(_links):
        link.close()


os.register_at_fork(after_in_child=_forget_in_child)


def watched_journal(
    kind: str, body: Mapping[str, Any], *, installation_id: str, installation_directory: Path
) -> tuple[OpenJournal, WatchdogLink]:
    """Write a journal and start a watchdog over it: only then may what it tells of be stopped. Where none starts, no journal stays."""
    journal = open_journal(kind, body, installation_id=installation_id, installation_directory=installation_directory)
    try:
        return journal, start_watchdog(journal.path)
    except BaseException:
        journal.remove()
        raise


def start_watchdog(journal: Path) -> WatchdogLink:
    """Start a watchdog over a journal, detached from our session; return once it has said that it stands by.

    Raise Refused where it does not within 20 s: then nothing may be stopped.
    """
    near, far = socket.socketpair()
    try:
        with far:
            pid = start_detached(
                [sys.executable, "-m", "tasks.watchdog", str(journal), str(far.fileno())],
                pass_fds=[far.fileno()],
                directory=Path(tasks.__path__[0]).parent,
            )
        near.settimeout(READY_TIMEOUT_SECONDS)
        try:
            answer = near.recv(1)
        except TimeoutError:
            answer = b""
        if answer != READY:
            raise Refused(
                f"the watchdog (process {pid}) did not report ready within {READY_TIMEOUT_SECONDS:g} s",
                hint=f"nothing was stopped; try `{sys.executable} -m tasks.watchdog` by hand, and see whether memory is short",
            )
        near.settimeout(5.0)
        return WatchdogLink(near, pid)
    except BaseException:
        # It may be about to start and read the end of the line: it will find nothing to do.
        near.close()
        raise
