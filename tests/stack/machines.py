"""Machines that know nothing of a stack: containers with an empty PostgreSQL, or with a Docker engine of their own."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stack.stack import wait_until

BARE_IMAGE = "mailarchiver-backup-stand-in/bare-machine"
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_DIRECTORIES = ("usr", "etc", "var/lib", "run", "tmp", "root", "proc", "sys", "dev", "home", "srv")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n", "etc/group": "root:x:0:\n", "etc/nsswitch.conf": "hosts: files dns\n",
}  # fmt: skip
# As good as --privileged, which fails where this machine itself lacks a capability.
_RIGHTS = (
    "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
    "--security-opt", "systempaths=unconfined", "--device-cgroup-rule", "a *:* rwm", "--cgroupns", "private",
)  # fmt: skip
_CONTROL_GROUPS = Path(__file__).with_name("control_groups.sh")


@dataclass(frozen=True)
class Machine:
    """A container that is taken for a machine."""

    name: str

    def run(
        self, *words: str, timeout_seconds: float = 180, stdin: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end there."""
        settings = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        return subprocess.run(
            ["docker", "exec", "--interactive", *settings, self.name, *words], capture_output=True, text=True, timeout=timeout_seconds,
            input=stdin or "", check=False,
        )  # fmt: skip

    def must(self, *words: str, timeout_seconds: float = 180, stdin: str | None = None) -> str:
        """Run a command that has to succeed; return what it printed."""
        done = self.run(*words, timeout_seconds=timeout_seconds, stdin=stdin)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
        return done.stdout

    def start(self, *words: str) -> None:
        """Start a command there and do not wait for it."""
        subprocess.run(["docker", "exec", "--detach", self.name, *words], capture_output=True, check=True, timeout=60)


@dataclass(frozen=True)
class Database:
    """A database that is asked by `psql` on some machine; it answers as `Stack` does, every value as text."""

    machine: Machine
    psql_command: Sequence[str]

    def psql(self, query: str, parameters: None = None, *, database: str | None = None) -> list[tuple[str | None, ...]]:
        """Run one statement; return its rows."""
        said = self.machine.must(
            *self.psql_command, "-X", "-A", "-t", "-F", "\x1f", "-R", "\x1e", "-f", "-", stdin=query
        )
        rows = said.rstrip("\n").split("\x1e") if said.strip() else []
        return [tuple(value or None for value in row.split("\x1f")) for row in rows]


@contextmanager
def machine_with_postgres(image: str) -> Iterator[tuple[Machine, Path]]:
    """Lend a container with an empty PostgreSQL, age and tar, without a network; and the directory that it works in, /recover there."""
    with tempfile.TemporaryDirectory() as directory:
        options = ["--network", "none", "--env", "POSTGRES_PASSWORD=x", "--volume", f"{directory}:/recover"]
        with _container(image, *options, "--volume", f"{shutil.which('age')}:/usr/bin/age:ro") as machine:
            ready = ("psql", "-h", "127.0.0.1", "-U", "postgres", "-c", "SELECT 1")
            wait_until(lambda: machine.run(*ready).returncode == 0, 60, "no server")
            yield machine, Path(directory)


@contextmanager
def machine_with_engine(*images: str, mounts: Mapping[Path, str]) -> Iterator[Machine]:
    """Lend a container that has this machine's programs (/usr), a Docker engine of its own with these images, and nothing else.

    `mounts` are directories of this machine, each with its place there, not to be written to. Needs root.
    """
    compose = Path.home() / ".docker" / "cli-plugins" / "docker-compose"
    shown = {
        Path("/usr"): "/usr",
        Path("/etc/alternatives"): "/etc/alternatives",
        Path("/etc/ld.so.cache"): "/etc/ld.so.cache",
    }
    if compose.exists():
        shown[compose.resolve()] = "/root/.docker/cli-plugins/docker-compose"
    shown |= {Path(each): each for each in (sys.prefix, sys.base_prefix) if not Path(each).is_relative_to("/usr")}
    volumes = [word for place, there in {**shown, **mounts}.items() for word in ("--volume", f"{place}:{there}:ro")]
    command = ("bash", "-c", "sleep infinity & wait")
    with _container(_bare_image(), *_RIGHTS, "--volume", "/var/lib/docker", *volumes, command=command) as machine:
        machine.must("bash", stdin=_CONTROL_GROUPS.read_text())
        machine.start("bash", "-c", "exec dockerd >/var/log-of-dockerd 2>&1")
        wait_until(
            lambda: machine.run("docker", "version").returncode == 0,
            60,
            f"no engine: {machine.run('cat', '/var/log-of-dockerd').stdout[-2000:]}",
        )
        saved = subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE)
        loading = ["docker", "exec", "--interactive", machine.name, "docker", "load", "--quiet"]
        subprocess.run(loading, stdin=saved.stdout, stdout=subprocess.DEVNULL, check=True, timeout=300)
        assert saved.wait(60) == 0
        yield machine


@contextmanager
def _container(image: str, *options: str, command: Sequence[str] = ()) -> Iterator[Machine]:
    words = ["docker", "run", "--detach", *options, image, *command]
    name = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    try:
        yield Machine(name)
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=True, timeout=60)


def _bare_image() -> str:
    """Import an image of directories and a few lines, unless it is there: everything that runs in it comes with a mount."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in _DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        for name, target in _LINKS.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
        for name, text in _FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    content = packed.getvalue()
    name = f"{BARE_IMAGE}:{hashlib.sha256(content).hexdigest()[:12]}"
    if (
        subprocess.run(["docker", "image", "inspect", name], capture_output=True, timeout=60, check=False).returncode
        != 0
    ):
        subprocess.run(["docker", "import", "-", name], input=content, capture_output=True, check=True, timeout=60)
    return name
