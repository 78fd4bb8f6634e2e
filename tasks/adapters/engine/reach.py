"""The way from this host to a server in a container."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from tasks.adapters.engine import relay as relay_program
from tasks.adapters.engine.containers import container, describe_container
from tasks.adapters.engine.programs import start_program
from tasks.adapters.host.processes import start_companion
from tasks.core.errors import BackupError

RELAY_READY_SECONDS = 30.0
CONNECT_SECONDS = 2.0
# `initdb` takes a second or two, what a crash left to be done may take longer.
FIRST_SECONDS = 10.0
LISTENS_POLL_SECONDS = 0.05


def host_can_reach(address: str, port: int, container_id: str) -> bool:
    """Tell whether this host can open a TCP connection to an address of a container.

    A server does not listen yet when its container has just been started: then it is waited for, since going through the container
    costs half a second of a core and a program in there for each connection. A refusal alone proves nothing: a firewall refuses too.
    """
    # A container that starts again and again is young each time, and so is one whose engine's clock is ahead.
    deadline = time.monotonic() + FIRST_SECONDS
    while True:
        try:
            with socket.create_connection((address, port), timeout=CONNECT_SECONDS):
                return True
        except ConnectionRefusedError:
            if time.monotonic() > deadline or not _is_starting(container_id):
                return False
            time.sleep(LISTENS_POLL_SECONDS)
        except OSError:
            return False


def _is_starting(container_id: str) -> bool:
    """Tell whether a container runs, and has done so for a few seconds only."""
    found = container(container_id)
    if found is None or found.state != "running" or not found.started_at:
        return False
    age = datetime.now(UTC) - datetime.fromisoformat(found.started_at)
    return age < timedelta(seconds=FIRST_SECONDS)


@contextmanager
def relay(container_id: str, port: int) -> Iterator[tuple[str, int]]:
    """Give a (host, port) on this host's loopback whose connections arrive at the container's own address and port.

    For hosts with no route to the containers (a worker in a container, Docker Desktop). They arrive at the container's
    address on its network, not at its loopback, so that the server asks for the password. The container needs bash. The
    relay is a process of its own: a library that holds Python's lock while it waits for the server would keep threads
    of ours from carrying the answer.
    """
    command = [sys.executable, "-m", "tasks.adapters.engine.relay_process", container_id, str(port)]
    with start_companion(command, ready_seconds=RELAY_READY_SECONDS) as said:
        host, _, number = said.rpartition(" ")
        yield host, int(number)


@contextmanager
def listening(container_id: str, port: int) -> Iterator[tuple[str, int]]:
    """Carry connections to a container from this very process; see `relay`."""
    found = container(container_id)
    if found is None or found.state != "running":
        raise BackupError(f"cannot reach port {port}: {describe_container(container_id)}")
    address = found.addresses[0] if found.addresses else "127.0.0.1"
    with relay_program.listening(
        lambda: start_program(container_id, relay_program.command(address, port), stdin=True), name=found.name
    ) as place:
        yield place
