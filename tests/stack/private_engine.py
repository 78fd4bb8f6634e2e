"""A Docker engine of a test's own, in a network of its own, which it may kill and restart."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests import warm
from tests.stack import engine
from tests.stack.stack import wait_until

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
START_SECONDS = 60.0


@dataclass
class PrivateEngine:
    """A dockerd below one directory, its sockets in another one with a short name: theirs may have 107 bytes.

    Programs reach it by DOCKER_HOST, which is set while it is lent.
    """

    place: Path
    sockets: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"unix://{self.sockets}/docker.sock"

    def start(self) -> None:
        """Start it, for the first time or again; return when it answers."""
        with (self.place / "dockerd.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [
                        shutil.which("dockerd") or "/usr/sbin/dockerd", "--host", self.address, "--data-root", str(self.place / "data"),
                        "--exec-root", str(self.sockets / "exec"), "--pidfile", str(self.place / "dockerd.pid"),
                    ],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                )
            )  # fmt: skip
        wait_until(self._answers_or_died, START_SECONDS, f"the engine does not answer: {self.place / 'dockerd.log'}")
        assert self.processes[-1].poll() is None, self.last_words()

    def is_away(self) -> bool:
        """Tell whether nothing answers any more."""
        return subprocess.run(["docker", "version"], capture_output=True, timeout=30, check=False).returncode != 0

    def _answers_or_died(self) -> bool:
        return self.processes[-1].poll() is not None or not self.is_away()

    def end(self, how: signal.Signals) -> None:
        """End it: SIGTERM as `systemctl stop` does, which stops its containers; SIGKILL as a crash, which leaves them running."""
        with suppress(ProcessLookupError):
            self.processes[-1].send_signal(how)
        self.processes[-1].wait(90)
        # Its containerd dies with it. Where process 1 buries nobody, the next engine would take the corpse for a living one.
        (self.sockets / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def last_words(self) -> str:
        """Give the end of its log."""
        return (self.place / "dockerd.log").read_text(errors="replace")[-3000:]


@contextmanager
def private_engine(place: Path, *images: str) -> Iterator[PrivateEngine]:
    """Lend an engine that has these images of the usual one (or none); what is asked of Docker in the block is asked of it. Needs root."""
    place.mkdir(parents=True)
    lent = PrivateEngine(place, Path(mkdtemp(prefix="mab-engine-")))
    saved = place / "images.tar"
    if images:
        subprocess.run(["docker", "save", "--output", str(saved), *images], check=True, timeout=300)
    try:
        with _own_network(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", lent.address)
            engine.engine.cache_clear()
            try:
                lent.start()
                if images:
                    words = ["docker", "load", "--quiet", "--input", str(saved)]
                    subprocess.run(words, check=True, timeout=300, stdout=subprocess.DEVNULL)
                    saved.unlink()
                yield lent
            finally:
                with suppress(subprocess.TimeoutExpired):
                    lent.end(signal.SIGTERM)
                engine.engine.cache_clear()
    finally:
        # What a killed engine had mounted stays mounted.
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted(
            (each for each in mounted if each.startswith((f"{place}/", f"{lent.sockets}/"))), reverse=True
        ):
            subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(place)
        shutil.rmtree(lent.sockets)


@contextmanager
def _own_network() -> Iterator[None]:
    """Put this thread and the programs it starts into a new network with nothing but a loopback: two engines share no firewall rule."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "no network of our own: is this root?")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
        yield
    finally:
        warm.end()
        libc.setns(before, _CLONE_NEWNET)
        os.close(before)
