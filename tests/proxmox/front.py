"""A small HTTPS server in this process that answers as Proxmox's do: JSON below /api2/json, a token in the header."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.certificates import certificate

API = "/api2/json"


class Answer(Exception):
    """An answer that is no success: a status, and its reason in Proxmox's words."""

    def __init__(self, status: int, reason: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.errors = status, reason, errors


class Front:
    """What answers. A subclass says what to which request."""

    scheme = "PVEAPIToken="
    separator = "="

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.token_id, self.secret = "backup@pve!archive", "01234567-89ab-cdef-0123-456789abcdef"
        self.token_works = True
        # What the token may not do: (method, end of the path) -> Proxmox's words.
        self.forbidden: dict[tuple[str, str], str] = {}
        self.requests: list[tuple[str, str]] = []
        # Given instead of any answer: bytes, or a place to be sent to.
        self.raw_answer: bytes | None = None
        self.redirect = ""
        self.port = 0
        pem, der, key = certificate("127.0.0.1")
        self.fingerprint = sha256(der).hexdigest()
        self.ca_file = place / "ca.pem"
        self.ca_file.write_bytes(pem)
        self.key_file = place / "key.pem"
        self.key_file.write_bytes(key)
        self.token_file = place / "token"
        self.token_file.write_text(f"{self.token_id}{self.separator}{self.secret}\n")
        self.token_file.chmod(0o600)

    def answer(self, method: str, path: str, values: dict[str, str]) -> Any:
        """Give what follows `data` in the answer; raise Answer for anything but a success."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Give how it is reached, as settings have it."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "token_file": str(self.token_file),
            "fingerprint": self.fingerprint,
        }

    def checked(self, method: str, path: str, values: dict[str, str], authorization: str) -> Any:
        """Answer a request whose token is right, and that it may make."""
        self.requests.append((method, path))
        if not self.token_works or authorization != f"{self.scheme}{self.token_id}{self.separator}{self.secret}":
            raise Answer(401, "authentication failure")
        for (forbidden, end), words in self.forbidden.items():
            if method == forbidden and path.endswith(end):
                raise Answer(403, words)
        return self.answer(method, path, values)


@contextmanager
def serving(front: Front) -> Iterator[None]:
    """Have it answer on a port of its own for the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            asked = urlsplit(self.path)
            values = dict(parse_qsl(asked.query))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            # A parameter that is given several times is a list; its values stand behind each other, as in Proxmox itself.
            for name, value in parse_qsl(body.decode(), keep_blank_values=True):
                values[name] = f"{values[name]}\0{value}" if name in values else value
            if front.redirect:
                self.send_response(302)
                self.send_header("Location", front.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            try:
                found = front.checked(
                    self.command, asked.path.removeprefix(API), values, self.headers.get("Authorization", "")
                )
                self._send(200, "OK", {"data": found})
            except Answer as answer:
                said = {"data": None, **({"errors": answer.errors} if answer.errors else {})}
                self._send(answer.status, answer.reason, said)

        do_GET = do_POST = do_PUT = do_DELETE = _any

        def _send(self, status: int, reason: str, content: dict[str, Any]) -> None:
            sent = json.dumps(content).encode() if front.raw_answer is None else front.raw_answer
            self.send_response(status, reason)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Say nothing of clients that went away."""

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(front.ca_file, front.key_file)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    front.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
