"""A listening socket, taken before anybody else can take the port, and held for a program that answers on it later.

Anyone who listens where our server is expected is told its password by the first client. Any user of the machine may take a port that is free.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from tasks.core.errors import BackupError

BACKLOG = 512
# Where a service manager hands sockets over (sd_listen_fds(3)).
FIRST_DESCRIPTOR = 3


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address at once. Raise BackupError where that is not possible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        # Bound alone, another's socket could still share the port.
        taken.listen(BACKLOG)
    except OSError as error:
        raise BackupError(
            f"cannot listen on {host} port {port}: {error.strerror}",
            hint="does another server run already, or another user's program on its port? `ss -ltnp` shows it; --port names another",
        ) from error
    return taken


def handed_over(environment: Mapping[str, str], pid: int) -> int | None:
    """Give the descriptor of the one socket that a service manager has for this process; None where there is none.

    >>> handed_over({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7), handed_over({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, 7)
    (3, None)
    """
    ours = environment.get("LISTEN_PID") == str(pid) and environment.get("LISTEN_FDS") == "1"
    return FIRST_DESCRIPTOR if ours else None


def inherited(descriptor: int) -> socket.socket:
    """Give the socket behind a descriptor, which no program that we start inherits."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)
