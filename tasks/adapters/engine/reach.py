"""The way from this host to a server in a container."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.adapters.engine import relay as relay_program
from tasks.adapters.engine.containers import container, describe_container
from tasks.adapters.engine.programs import start_program
from tasks.adapters.host.processes import start_companion
from tasks.core.errors import BackupError

RELAY_READY_SECONDS = 30.0


def host_can_reach(address: str, port: int, timeout_seconds: float = 2.0) -> bool:
    """Tell whether this host can open a TCP connection to an address (of a container, for one)."""
    try:
        with socket.create_connection((address, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False


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
