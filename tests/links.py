"""A link to an HTTP server of a test's own: as slow as it is told to be, counting what goes through, with a clock that may be off."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE_BYTES = 16 * 1024
# How far S3 lets two clocks differ.
SKEW_LIMIT = timedelta(minutes=15)
TOO_SKEWED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time '
    b"and the current time is too large.</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>"
)
_OF_A_HOP = {"connection", "keep-alive", "transfer-encoding", "server"}


@dataclass
class Link:
    """A link at work. Its fields may be changed while it is: bytes a second for all connections, and how far the server's clock is off.

    `copies_carry` are headers that are added to requests which copy an object within the server.
    """

    address: str
    port: int
    bytes_per_second: float | None = None
    clock_off: timedelta = timedelta()
    copies_carry: dict[str, str] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    moments: list[tuple[float, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    free_at: float = 0.0

    @property
    def sent_bytes(self) -> int:
        """How many bytes of files went through."""
        return sum(self.sent.values())

    def fastest(self, seconds: float) -> float:
        """Give the most bytes a second that went through in any stretch of so many seconds."""
        most, first, within = 0, 0, 0
        for at, count in self.moments:
            within += count
            while at - self.moments[first][0] > seconds:
                within -= self.moments[first][1]
                first += 1
            most = max(most, within)
        return most / seconds

    def take(self, name: str, count: int) -> None:
        """Let bytes of a file through, as fast as the link is."""
        with self.lock:
            now = time.monotonic()
            self.sent[name] = self.sent.get(name, 0) + count
            self.moments.append((now, count))
            if self.bytes_per_second is None:
                return
            self.free_at = max(self.free_at, now) + count / self.bytes_per_second
            wait = self.free_at - now
        time.sleep(wait)


@contextmanager
def link_to(port: int, **options: Any) -> Iterator[Link]:
    """Run a link to a server at a port of the loopback, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def _pass_on(self) -> None:
            refused = _why_refused(self.headers.get("X-Amz-Date"), link)
            onward = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                if refused:
                    self.close_connection = True  # its body is not read
                    self._answer(403, [("Content-Type", "application/xml")], TOO_SKEWED)
                    return
                onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for key, value in self.headers.items():
                    if key.lower() not in ("connection", "expect"):
                        onward.putheader(key, value)
                for key, value in link.copies_carry.items() if "X-Amz-Copy-Source" in self.headers else ():
                    onward.putheader(key, value)
                onward.endheaders()
                left = int(self.headers.get("Content-Length") or 0)
                while left:
                    piece = self.rfile.read(min(PIECE_BYTES, left))
                    if not piece:
                        raise ConnectionError("the client went away")
                    link.take(self.path.partition("?")[0], len(piece))
                    onward.send(piece)
                    left -= len(piece)
                answer = onward.getresponse()
                body = answer.read()
                self._answer(answer.status, answer.getheaders(), body)
            except OSError:
                self.close_connection = True
            finally:
                onward.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            if link.clock_off:
                headers = [each for each in headers if each[0].lower() != "date"]
                self.send_header("Date", format_datetime(datetime.now(UTC) + link.clock_off, usegmt=True))
            told = {key.lower() for key, _ in headers}
            for key, value in headers:
                if key.lower() not in _OF_A_HOP:
                    self.send_header(key, value)
            if "content-length" not in told:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    link = Link(f"http://127.0.0.1:{server.server_address[1]}", int(server.server_address[1]), **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield link
    finally:
        with suppress(OSError):
            server.shutdown()
            server.server_close()


def _why_refused(signed_at: str | None, link: Link) -> bool:
    """Tell whether a server with this clock refuses a request of this moment."""
    if signed_at is None or not link.clock_off:  # a test may have moved the clock of this process
        return False
    at = datetime.strptime(signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return abs(datetime.now(UTC) + link.clock_off - at) > SKEW_LIMIT
