"""Containers of LXC for tests: a shell as init, which ends at once when it is asked to, and a root directory with odd files."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stack.stack import wait_until

PROGRAMS = ("lxc-start", "lxc-stop", "lxc-info", "lxc-freeze", "lxc-unfreeze", "lxc-attach")
INIT = """#!/bin/busybox sh
# `reboot` and `halt` of a test's container: PID 1 ends.
trap '{on_halt}' USR1
while :; do /bin/busybox sleep 1 & wait $!; done
"""
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def lxc_problem() -> str:
    """Say why containers cannot be run here; "" where they can."""
    if missing := [each for each in (*PROGRAMS, "busybox") if shutil.which(each) is None]:
        return f"{missing[0]} is missing; `tests/stack/machine.sh` installs lxc and busybox-static"
    return "" if os.geteuid() == 0 else "containers of LXC are run by root"


def require_lxc() -> None:
    """In CI what is missing is a failure, elsewhere the test is skipped with the reason."""
    if problem := lxc_problem():
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)


@dataclass(frozen=True)
class Container:
    """A container below a place of its own."""

    place: Path
    name: str

    @property
    def root(self) -> Path:
        """Where its files are."""
        return self.place / self.name / "rootfs"

    @property
    def config(self) -> str:
        """Its configuration."""
        return (self.place / self.name / "config").read_text()

    def run(self, program: str, *words: str) -> str:
        """Run one of LXC's programs on it."""
        done = subprocess.run(
            [program, "-P", str(self.place), "-n", self.name, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )  # fmt: skip
        assert done.returncode == 0, f"{program}: {done.stderr}"
        return done.stdout.strip()

    def state(self) -> str:
        """Give its state in LXC's word."""
        return self.run("lxc-info", "-sH")

    def pid(self) -> str:
        """Give the process id of its init; "" where it does not run."""
        return self.run("lxc-info", "-pH")

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.state() == "STOPPED":
            self.run("lxc-start")
        wait_until(lambda: self.state() == "RUNNING", 20, f"{self.name} does not start")

    def end(self) -> None:
        """End it, however it is."""
        if self.state() == "FROZEN":
            self.run("lxc-unfreeze")
        if self.state() != "STOPPED":
            self.run("lxc-stop", "-k")
        wait_until(lambda: self.state() == "STOPPED", 20, f"{self.name} does not end")


def make_container(
    place: Path, name: str, *, stubborn: bool = False, halt_seconds: float = 0, more: str = ""
) -> Container:
    """Make a container with a busybox and little else; a `stubborn` one does not shut down when it is asked to."""
    made = Container(place, name)
    for directory in ("bin", "proc", "sys", "dev", "etc", "srv"):
        (made.root / directory).mkdir(parents=True)
    (place / name).chmod(0o755)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, made.root / "bin/busybox")
    init = made.root / "bin/init"
    init.write_text(INIT.format(on_halt=":" if stubborn else f"/bin/busybox sleep {halt_seconds}; exit 0"))
    init.chmod(0o755)
    (made.root / "etc/hostname").write_text(f"{name}\n")
    lines = [
        f"lxc.rootfs.path = dir:{made.root}", f"lxc.uts.name = {name}", "lxc.init.cmd = /bin/init", "lxc.signal.halt = SIGUSR1",
        "lxc.net.0.type = empty", "lxc.mount.auto = proc:mixed", "lxc.autodev = 1", "lxc.tty.max = 0", more,
    ]  # fmt: skip
    (place / name / "config").write_text("\n".join(lines) + "\n")
    return made


@contextmanager
def containers_of(place: Path) -> Iterator[None]:
    """End all containers below a place at the end of the block."""
    try:
        yield
    finally:
        for each in place.iterdir():
            if (each / "config").is_file():
                Container(place, each.name).end()


def fill_with_odd_files(root: Path) -> None:
    """Put one of everything there that a file system can hold: owners, modes, attributes, ACLs, capabilities, links, devices, holes."""
    place = root / "srv/odd"
    place.mkdir()
    (place / "spöt\nted").write_bytes(b"a name of two lines\n")
    owned = place / "owned"
    owned.write_bytes(os.urandom(100_000))
    os.chown(owned, 100_033, 100_034)
    owned.chmod(0o6751)
    os.setxattr(owned, "user.note", b"of a user")
    os.setxattr(owned, "trusted.note", b"of the system\0")
    os.link(owned, place / "second name")
    able = place / "able"
    able.write_bytes(b"#!/bin/true\n")
    os.chown(able, 7, 8)
    able.chmod(0o755)
    os.setxattr(able, "security.capability", CAPABILITY)
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    os.setxattr(shared, "system.posix_acl_access", _acl(1234))
    os.setxattr(shared, "system.posix_acl_default", _acl(4321))
    (shared / "inside").write_bytes(b"")
    holes = place / "holes"
    with open(holes, "wb") as file:
        file.truncate(300 << 20)
        file.seek(200 << 20)
        file.write(b"in the middle")
    os.symlink("/nowhere/../at all", place / "link")
    os.lchown(place / "link", 77, 88)
    os.mkfifo(place / "fifo", 0o640)
    os.mknod(place / "null", stat.S_IFCHR | 0o620, os.makedev(1, 3))
    os.mknod(place / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as listening:
        where = os.open(place, os.O_RDONLY)
        try:
            listening.bind(f"/proc/self/fd/{where}/socket")
        finally:
            os.close(where)
    os.utime(owned, ns=(10**18, 981_173_106_123_456_789))
    os.utime(place / "link", ns=(1, 2), follow_symlinks=False)
    os.utime(place, ns=(5, 1_000_000_007))


def what_is_there(root: Path) -> dict[str, tuple[object, ...]]:
    """Give all that is to come back of each file, sockets left out; this looks for itself, and asks nothing of the program."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for path in [directory, *(os.path.join(directory, each) for each in (*files, *(one for one in names)))]:
            state = os.lstat(path)
            if stat.S_ISSOCK(state.st_mode):
                continue
            content: object = None
            if stat.S_ISLNK(state.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(state.st_mode):
                content = Path(path).read_bytes()[:250_000] + Path(path).read_bytes()[200 << 20 : (200 << 20) + 100]
            attributes = {
                each: os.getxattr(path, each, follow_symlinks=False)
                for each in os.listxattr(path, follow_symlinks=False)
            }
            links = state.st_nlink if not stat.S_ISDIR(state.st_mode) else 0
            found[os.path.relpath(path, root)] = (
                state.st_mode, state.st_uid, state.st_gid, state.st_rdev, state.st_mtime_ns, links, attributes, content,
                state.st_size if stat.S_ISREG(state.st_mode) else 0,
            )  # fmt: skip
    return found


def _acl(user: int) -> bytes:
    """Write an ACL by which one more user may read and write."""
    entries = [
        (0x01, 7, 0xFFFFFFFF),
        (0x02, 6, user),
        (0x04, 5, 0xFFFFFFFF),
        (0x10, 7, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
