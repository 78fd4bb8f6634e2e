"""A loopback listener whose connections are carried by a program inside a container.

Each connection gets a program of its own, which opens a TCP connection there and copies both ways.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tasks.adapters.engine.exec_stream import Program
from tasks.core.errors import BackupError

logger = logging.getLogger(__name__)

BLOCK_BYTES = 65_536
IDLE_TIMEOUT_SECONDS = 3600

# bash gives background programs an empty stdin, hence descriptor 4. When either side ends, so does the connection. Both
# copiers are waited for, however this ends: PostgreSQL, as process 1 of its container, takes an orphan that dies by a
# signal for a crashed server process and restarts them all.
_SCRIPT = """
exec 3<>"/dev/tcp/$1/$2" || exit 1
exec 4<&0
trap 'kill $down $up 2>/dev/null; wait' EXIT
trap 'exit 0' TERM INT HUP
cat <&3 & down=$!
cat <&4 >&3 & up=$!
wait -n
exit 0
"""


def command(address: str, port: int) -> tuple[str, ...]:
    """Return the program that connects its stdin and stdout to an address, as the container sees it."""
    return ("bash", "-c", _SCRIPT, "relay", address, str(port))


@contextmanager
def listening(open_program: Callable[[], Program], *, name: str) -> Iterator[tuple[str, int]]:
    """Listen on a free loopback port until the block is left; give each connection a program of its own."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        listener = threading.Thread(
            target=_accept, args=(server, open_program, stopping), name=f"relay to {name}", daemon=True
        )
        listener.start()
        try:
            yield "127.0.0.1", server.getsockname()[1]
        finally:
            stopping.set()
            listener.join(timeout=10)


def _accept(server: socket.socket, open_program: Callable[[], Program], stopping: threading.Event) -> None:
    carriers: list[threading.Thread] = []
    while not stopping.is_set():
        try:
            client, _ = server.accept()
        except TimeoutError:
            continue
        except OSError:
            break
        carrier = threading.Thread(target=_carry, args=(client, open_program, stopping), daemon=True)
        carrier.start()
        carriers.append(carrier)
    for carrier in carriers:
        carrier.join(timeout=5)


def _carry(client: socket.socket, open_program: Callable[[], Program], stopping: threading.Event) -> None:
    with client, suppress(OSError):
        try:
            with open_program() as program:
                _copy_both_ways(client, program, stopping)
        except BackupError as error:
            logger.warning("A relayed connection broke off: %s", error.message)


def _copy_both_ways(client: socket.socket, program: Program, stopping: threading.Event) -> None:
    poll = select.poll()
    poll.register(client, select.POLLIN)
    poll.register(program.fileno(), select.POLLIN)
    while not stopping.is_set():
        ready = {descriptor for descriptor, _ in poll.poll(500)}
        if program.fileno() in ready or program.has_unread:
            chunk = program.receive(IDLE_TIMEOUT_SECONDS)
            if chunk is None:
                return
            client.sendall(chunk)
        if client.fileno() in ready:
            data = client.recv(BLOCK_BYTES)
            if not data:
                program.close_stdin()
                program.wait(5)
                return
            program.write(data, idle_timeout_seconds=IDLE_TIMEOUT_SECONDS)
