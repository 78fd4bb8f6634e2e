"""A registry of images for tests: small ones, made by hand, with tags that can be moved; the engine takes it on loopback without TLS."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """What a registry holds: blobs and manifests by digest, and tags of one repository."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.asked: list[str] = []

    @property
    def repository(self) -> str:
        """Name the repository as the engine calls it."""
        return f"127.0.0.1:{self._server.server_port}/tests/application"

    def push(self, tag: str, labels: Mapping[str, str]) -> str:
        """Let a tag stand for a new image with these labels; return its digest."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            entry = tarfile.TarInfo("words")
            content = json.dumps(dict(labels)).encode()
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        packed = gzip.compress(layer.getvalue(), mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64", "os": "linux", "config": {"Labels": dict(labels), "Cmd": ["/none"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
            }
        ).encode()  # fmt: skip
        manifest = json.dumps(
            {
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": _digest(config)},
                "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(packed), "digest": _digest(packed)}],
            }
        ).encode()  # fmt: skip
        for each in (packed, config, manifest):
            self.blobs[_digest(each)] = each
        self.tags[tag] = _digest(manifest)
        return _digest(manifest)


@contextmanager
def registry() -> Iterator[Registry]:
    """Lend a registry that answers for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    lent = Registry(server)
    server.registry = lent  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield lent
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer the few questions that a pull asks."""
        held: Registry = self.server.registry  # type: ignore[attr-defined]
        held.asked.append(self.path)
        kind, _, wanted = self.path.removeprefix("/v2/").removeprefix("tests/application/").partition("/")
        content = b"{}" if self.path == "/v2/" else held.blobs.get(held.tags.get(wanted, wanted))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", MANIFEST if kind == "manifests" else "application/octet-stream")
        self.send_header("Docker-Content-Digest", _digest(content))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Keep quiet."""
