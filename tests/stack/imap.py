"""A mail server that only writes down who came: it proves that something logged in, or that nothing did.

It runs as a thread of the tests (`imap_server`), or by itself in a container (`python3 imap.py PORT` prints one JSON line
per event), and needs nothing but the standard library.
"""

from __future__ import annotations

import json
import shlex
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Connection:
    """Somebody connected (`user` None), or logged in with these words. `at` is a Unix time."""

    at: float
    address: str
    user: str | None = None
    password: str | None = None


class ImapServer:
    """A fake IMAP server on all of the host's addresses, recording from the moment it is made until `close`."""

    def __init__(self, port: int = 0, heard: Callable[[Connection], None] | None = None) -> None:
        self._seen: list[Connection] = []
        self._lock = threading.Lock()
        self._heard = heard
        self._server = _Server(("0.0.0.0", port), _Handler)
        self._server.record = self._record
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def connections(self) -> list[Connection]:
        """Give every connection and login so far, oldest first: a connection is recorded before its login."""
        with self._lock:
            return list(self._seen)

    def logins(self) -> list[Connection]:
        """Give only the logins."""
        return [seen for seen in self.connections() if seen.user is not None]

    def forget(self) -> None:
        """Begin anew, as if nobody had ever come."""
        with self._lock:
            self._seen.clear()

    def close(self) -> None:
        """Stop listening; what was recorded stays readable."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _record(self, seen: Connection) -> None:
        with self._lock:
            self._seen.append(seen)
        if self._heard is not None:
            self._heard(seen)


@contextmanager
def imap_server(port: int = 0) -> Iterator[ImapServer]:
    """Lend a running server; containers reach it at `tests.stack.stack.host_address()` and its `port`."""
    server = ImapServer(port)
    try:
        yield server
    finally:
        server.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    record: Callable[[Connection], None]


class _Handler(socketserver.StreamRequestHandler):
    timeout = 30

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        address = str(self.client_address[0])
        server.record(Connection(time.time(), address))
        try:
            self._say("* OK IMAP4rev1 ready")
            while line := self.rfile.readline(8192).decode(errors="replace").strip():
                tag, _, command = line.partition(" ")
                words = _words(command)
                verb = words[0].upper() if words else ""
                if verb == "LOGIN" and len(words) == 3:
                    server.record(Connection(time.time(), address, words[1], words[2]))
                elif verb == "LOGOUT":
                    self._say("* BYE come again")
                elif verb == "SELECT":
                    self._say("* 0 EXISTS")
                self._say(f"{tag} OK {verb} completed")
                if verb == "LOGOUT":
                    return
        except OSError:
            return

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def main() -> None:
    """Serve in the foreground, printing what is seen."""
    server = ImapServer(int(sys.argv[1]), lambda seen: print(json.dumps(asdict(seen)), flush=True))
    try:
        threading.Event().wait()
    finally:
        server.close()


if __name__ == "__main__":
    main()
