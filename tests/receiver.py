"""A receiver of notifications and pings on loopback: what people and health checks would have got."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """Everything that arrived, in order: the path asked for, and the body (JSON where it is that)."""

    port: int
    arrived: list[tuple[str, Any]] = field(default_factory=list)

    def notifications(self) -> list[dict[str, Any]]:
        """Give the notifications that Apprise's JSON service sent."""
        return [body for path, body in self.arrived if path.startswith("/notify")]

    def titles(self) -> list[str]:
        """Give the titles of the notifications."""
        return [str(body["title"]) for body in self.notifications()]

    def pings(self) -> list[str]:
        """Give the pings' last words: "start", "fail", or "" for success."""
        return [path.removeprefix("/ping").lstrip("/") for path, _ in self.arrived if path.startswith("/ping")]

    def settings(self, **apprise: Any) -> list[dict[str, Any]]:
        """Write the `notifications` of a settings file that lead here."""
        return [
            {"kind": "ping", "url": f"http://127.0.0.1:{self.port}/ping"},
            {"kind": "apprise", "url": f"json://127.0.0.1:{self.port}/notify", **apprise},
        ]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a receiver on a free port until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._take(b"")

        def do_POST(self) -> None:
            self._take(self.rfile.read(int(self.headers.get("content-length", 0))))

        def _take(self, body: bytes) -> None:
            try:
                value: Any = json.loads(body)
            except ValueError:
                value = body.decode(errors="replace")
            found.arrived.append((self.path, value))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
