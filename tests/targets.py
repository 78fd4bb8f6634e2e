"""Real targets on loopback for copies: S3, SFTP and WebDAV by rclone's own servers, SFTP by OpenSSH's, and rclone's configuration for them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.prefect_server import free_port, kill_group
from tests.stack.stack import wait_until

# For no longer than a program takes to start. With 0, rclone's server looks through its cache without a pause, and keeps a core busy.
DIRECTORY_CACHE = "10ms"
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
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start it, for the first time or again on the same port; return when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(self._answers, 20, f"the {self.kind} server does not answer")

    def kill(self) -> None:
        """Kill it at once, with its sessions."""
        if self.process is not None:
            below = _below(self.process.pid)
            kill_group(self.process)
            for each in below:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            self.process = None

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


def _below(process: int) -> list[int]:
    """List the processes that a process has started, and those that they have."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}
    found = [process]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def obscured(password: str) -> str:
    """Give a password as rclone's configuration keeps it."""
    return subprocess.run(
        [RCLONE, "obscure", "-"], input=password, capture_output=True, text=True, check=True
    ).stdout.strip()


def server(place: Path, kind: str) -> Server:
    """Describe a server of a kind (s3, sftp, webdav, openssh) that keeps its files below `place`."""
    files, port = place / kind, free_port()
    (files / "bucket").mkdir(parents=True)
    if kind == "openssh":
        return _openssh(place, files, port)
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
        DIRECTORY_CACHE,
        *options,
    ]
    return Server(kind, files, command, section, port, place / f"{kind}.log")


def _openssh(place: Path, files: Path, port: int) -> Server:
    """Describe OpenSSH's server, which knows its own user by a key alone, and is known by its host key.

    rclone's `remote` are paths of the user's: `away:bucket` is below `files`, where a session begins.
    """
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        problem = "OpenSSH's server is missing; `tests/stack/machine.sh` brings it"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    for name in ("host", "client", "other"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(place / f"{name}-key")]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    host_key = " ".join((place / "host-key.pub").read_text().split()[:2])
    (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (place / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {place}/host-key\nAuthorizedKeysFile {place}/client-key.pub\n"
        "StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication yes\nPermitRootLogin yes\n"
        f"Subsystem sftp internal-sftp -d {files}\n"
    )
    if os.geteuid() == 0:  # where it keeps its unprivileged half
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    section = {
        "type": "sftp", "host": "127.0.0.1", "port": str(port), "user": pwd.getpwuid(os.geteuid()).pw_name,
        "key_file": str(place / "client-key"), "known_hosts_file": str(place / "known_hosts"),
    }  # fmt: skip
    command = [program, "-D", "-e", "-f", str(place / "sshd_config")]
    return Server("openssh", files, command, section, port, place / "openssh.log")


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
