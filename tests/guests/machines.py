"""Virtual machines of libvirt for tests: a boot sector as the whole system, which powers off when its power button is pressed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stack.stack import wait_until

URI = "qemu:///system"
PROGRAMS = ("libvirtd", "virtlogd", "virsh", "qemu-img", "qemu-io", "qemu-system-x86_64")
WORDS = {"running": "RUNNING", "shut off": "STOPPED", "in shutdown": "STOPPING", "paused": "PAUSED"}

# Lets ACPI tell of the power button (port 0x602), looks at it at each tick of the clock (0x600), and enters state S5 (0x604).
BOOT = bytes.fromhex("ba0206 b80001 ef  fb f4 ba0006 ed f6c401 74f5  ba0406 b80020 ef ebfe".replace(" ", ""))
# Does nothing at all, whatever button is pressed.
STUBBORN_BOOT = bytes.fromhex("fb f4 ebfc".replace(" ", ""))

DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{place}/system.qcow2'/><target dev='hda' bus='ide'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{place}/data.raw'/><target dev='hdb' bus='ide'/></disk>
<interface type='user'><mac address='52:54:00:11:22:33'/></interface>
</devices></domain>
"""


def libvirt_problem() -> str:
    """Say why virtual machines cannot be run here; "" where they can."""
    if missing := [each for each in PROGRAMS if shutil.which(each) is None and not Path("/usr/sbin", each).exists()]:
        return f"{missing[0]} is missing; `tests/stack/machine.sh` installs libvirt and qemu"
    return "" if os.geteuid() == 0 else "virtual machines are run by root"


def require_libvirt() -> None:
    """In CI what is missing is a failure, elsewhere the test is skipped with the reason."""
    if problem := libvirt_problem():
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)


def virsh(*words: str) -> tuple[int, str]:
    """Run virsh; give its exit code and what it said."""
    done = subprocess.run(
        ["virsh", "--quiet", "--connect", URI, *words], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    return done.returncode, (done.stdout if done.returncode == 0 else done.stderr).strip()


@contextmanager
def running_libvirt(place: Path) -> Iterator[None]:
    """Run libvirt's daemons within the block, unless they run already."""
    if virsh("uri")[0] == 0:
        yield
        return
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for program in ("virtlogd", "libvirtd"):
            with (place / f"{program}.log").open("wb") as log:
                command = [program, "--pid-file", str(place / f"{program}.pid")]
                started.append(
                    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
                )
        wait_until(lambda: virsh("uri")[0] == 0, 60, "libvirtd does not answer")
        yield
    finally:
        for each in reversed(started):
            each.terminate()
            each.wait(30)


@dataclass(frozen=True)
class Machine:
    """A virtual machine whose disks are in a directory of its name."""

    images: Path
    name: str

    @property
    def place(self) -> Path:
        """Where its disks are."""
        return self.images / self.name

    def must(self, what: str, *words: str) -> str:
        """Run a command of virsh on it that has to succeed."""
        code, said = virsh(what, self.name, *words)
        assert code == 0, said
        return said

    def state(self) -> str:
        """Give its state, in LXC's words."""
        return WORDS[self.must("domstate")]

    def number(self) -> str:
        """Give the number of this run of it; "-" where it does not run."""
        return self.must("domid")

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.state() == "STOPPED":
            self.must("start")

    def end(self) -> None:
        """Pull its plug."""
        if self.state() != "STOPPED":
            virsh("destroy", self.name)

    def remove(self) -> None:
        """End it, and let libvirt forget it."""
        virsh("destroy", self.name)
        virsh("undefine", self.name)


def make_machine(images: Path, name: str, *, stubborn: bool = False) -> Machine:
    """Make a machine with two disks, of qcow2 and raw, with something in them and holes; a `stubborn` one ignores its power button."""
    made = Machine(images, name)
    made.place.mkdir()
    made.place.chmod(0o755)
    raw = made.place / "boot.raw"
    raw.write_bytes((STUBBORN_BOOT if stubborn else BOOT).ljust(510, b"\0") + b"\x55\xaa" + bytes(8 << 20))
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(made.place / "system.qcow2"))
    _run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 64k", str(made.place / "system.qcow2"))
    raw.unlink()
    with (made.place / "data.raw").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(20 << 20)
        file.write(os.urandom(1 << 20))
    definition = made.place / "domain.xml"
    definition.write_text(DOMAIN.format(name=name, place=made.place))
    code, said = virsh("define", str(definition))
    assert code == 0, said
    return made


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"
