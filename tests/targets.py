"""Real targets on loopback for copies: S3, SFTP and WebDAV by rclone's own servers, and a plain directory; and rclone's configuration for them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.prefect_server import free_port, kill_group
from tests.stack.stack import wait_until

RCLONE = str(Path(sys.executable).with_name("rclone"))
USER, PASSWORD = "copies-access-key", "canary-password-of-the-target"


@dataclass
class Server:
    """A server of one kind: where it keeps its files, how it is started, and its section of rclone's configuration."""

    kind: str
    files: Path
    command: list[str]
    section: dict[str, str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start it, for the first time or again on the same port; return when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._answers, 20, f"the {self.kind} server does not answer")

    def kill(self) -> None:
        """Kill it at once."""
        if self.process is not None:
            kill_group(self.process)
            self.process = None

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


def obscured(password: str) -> str:
    """Give a password as rclone's configuration keeps it."""
    return subprocess.run(
        [RCLONE, "obscure", "-"], input=password, capture_output=True, text=True, check=True
    ).stdout.strip()


def server(place: Path, kind: str) -> Server:
    """Describe a server of a kind (s3, sftp, webdav) that keeps its files below `place`."""
    files, port = place / kind, free_port()
    (files / "bucket").mkdir(parents=True)
    address = f"127.0.0.1:{port}"
    if kind == "s3":
        options = ["--auth-key", f"{USER},{PASSWORD}"]
        section = {
            "type": "s3", "provider": "Rclone", "access_key_id": USER, "secret_access_key": PASSWORD, "endpoint": f"http://{address}"
        }  # fmt: skip
    else:
        options = ["--user", USER, "--pass", PASSWORD]
        section = {"type": kind, "user": USER, "pass": obscured(PASSWORD)}
        section |= (
            {"host": "127.0.0.1", "port": str(port), "shell_type": "none"}
            if kind == "sftp"
            else {"url": f"http://{address}", "vendor": "rclone"}
        )
    command = [
        RCLONE,
        "serve",
        kind,
        str(files),
        "--addr",
        address,
        "--config",
        "/dev/null",
        "--dir-cache-time",
        "0s",
        *options,
    ]
    return Server(kind, files, command, section, port, place / f"{kind}.log")


@contextmanager
def serving(place: Path, kind: str) -> Iterator[Server]:
    """Run a server of a kind until the block ends."""
    made = server(place, kind)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def write_config(place: Path, sections: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write rclone's configuration, for its owner alone."""
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in found.items())
        for name, found in sections.items()
    )
    place.write_text(text)
    place.chmod(0o600)
    return place
