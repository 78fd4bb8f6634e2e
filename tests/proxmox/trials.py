"""Restores under new ids, and what runs inside a guest, for the Proxmox of tests.

A restore takes its time, keeps the id locked, and makes a guest with the configuration that the backup carries. Inside a guest there is a
real stack of the test's Docker engine (`InnerGuest`): a restore puts its data back as the backup had them, a start of the guest starts its
containers as their restart policy would, and the guest agent runs real programs. Its network is *not* cut by `link_down`: what a link
keeps out is a matter for Proxmox, and what we ask of it is in the configuration (`first_starts`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.proxmox.front import Answer
from tests.stack.engine import PROJECT_LABEL
from tests.stack.stack import APPLICATION_SERVICE, POSTGRES_SERVICE, Stack

if TYPE_CHECKING:
    from tests.proxmox.fake import FakeProxmox, Task

_GIB = 1 << 30
CARRIED = {
    "qemu": {
        "name": "mailvm", "agent": "1", "cores": "1", "memory": "512", "onboot": "1", "scsi0": "local-lvm:vm-102-disk-0,size=4G",
        "net0": "virtio=BC:24:11:00:01:02,bridge=vmbr0,firewall=1", "net1": "virtio=BC:24:11:00:01:03,bridge=vmbr1,link_down=0",
    },
    "lxc": {
        "hostname": "mail", "cores": "1", "memory": "512", "onboot": "1", "rootfs": "local-lvm:vm-101-disk-0,size=8G",
        "net0": "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:01:01,ip=dhcp,type=veth",
    },
}  # fmt: skip
# `docker ps` of the guest's own Docker shows its own containers; the rest is the engine's.
_DOCKER = """#!/bin/sh
if [ "$1" = ps ]; then shift; exec {docker} ps --filter label={label} "$@"; fi
exec {docker} "$@"
"""
# As the node's `pct exec ID -- PROGRAM`, for a guest that runs.
_PCT = """#!/bin/sh
[ "$1" = exec ] && [ "$3" = -- ] || {{ echo "unknown command" >&2; exit 255; }}
[ -e "{running}/$2" ] || {{ echo "container '$2' not running!" >&2; exit 1; }}
shift 3
PATH={bin}:$PATH exec "$@"
"""


class InnerGuest:
    """The stack inside a guest: boots, is halted, and gets the data that the backup holds."""

    def __init__(self, stack: Stack, place: Path) -> None:
        self.stack, self.bin, self._kept = stack, place / "bin", place / "kept"
        self.bin.mkdir()
        self.running = place / "running"
        self.running.mkdir()
        docker = shutil.which("docker")
        self._write("docker", _DOCKER.format(docker=docker, label=f"{PROJECT_LABEL}={stack.project}"))
        self._write("pct", _PCT.format(running=self.running, bin=self.bin))
        self.ids = {name: str(stack.container(name).id) for name in (APPLICATION_SERVICE, POSTGRES_SERVICE)}
        self.stack.compose("stop")
        subprocess.run(["cp", "-a", stack.directory / "postgres-data", self._kept], check=True)

    @property
    def application(self) -> str:
        """Give the id of the application's container."""
        return self.ids[APPLICATION_SERVICE]

    def restore(self) -> None:
        """Put the data back as the backup holds them."""
        self.halt()
        data = self.stack.directory / "postgres-data"
        shutil.rmtree(data)
        subprocess.run(["cp", "-a", self._kept, data], check=True)
        subprocess.run(["docker", "update", "--restart", "always", *self.ids.values()], check=True, capture_output=True)

    def boot(self, vmid: int) -> None:
        """Start what the restart policies start."""
        subprocess.run(["docker", "start", *reversed(self.ids.values())], check=True, capture_output=True)
        (self.running / str(vmid)).touch()

    def halt(self) -> None:
        """End everything, as a guest without power does."""
        for each in self.running.iterdir():
            each.unlink()
        subprocess.run(["docker", "kill", *self.ids.values()], check=False, capture_output=True)

    def _write(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)


@dataclass
class Trials:
    """What a test may set of restores and of what is inside restored guests, and what it may look at afterwards."""

    fake: FakeProxmox
    inner: InnerGuest | None = None
    seconds: float = 0.3
    end: str = "OK"
    lines: list[str] = field(default_factory=list)
    # Taken the moment somebody asks for them.
    taken: set[int] = field(default_factory=set)
    keeps_link: bool = False
    forgets_description: bool = False
    leaves_rest: bool = False
    agent_answers: bool = True
    free_bytes: int = 50 * _GIB
    content: str = "images,rootdir"
    carried: dict[str, dict[str, str]] = field(
        default_factory=lambda: {kind: dict(some) for kind, some in CARRIED.items()}
    )
    # What a test wants to do before a program is run inside.
    before_program: Callable[[Sequence[str], str], None] | None = None
    first_starts: dict[int, dict[str, Any]] = field(default_factory=dict)
    made: list[int] = field(default_factory=list)
    _programs: dict[int, tuple[int, bytes, bytes] | None] = field(default_factory=dict)

    def routes(self) -> dict[tuple[str, str], Callable[..., Any]]:
        """Give what is answered here."""
        guest = r"/nodes/pve1/(qemu|lxc)/(\d+)"
        return {
            ("POST", r"/nodes/pve1/(qemu|lxc)"): self._restore,
            ("GET", r"/nodes/pve1/vzdump/extractconfig"): self._carried,
            ("GET", r"/nodes/pve1/storage/local-lvm/status"): self._storage,
            ("PUT", guest + "/config"): self._change,
            ("DELETE", guest): self._destroy,
            ("POST", guest + "/agent/ping"): self._ping,
            ("POST", guest + "/agent/exec"): self._exec,
            ("GET", guest + "/agent/exec-status"): self._exec_status,
        }

    def left(self) -> list[int]:
        """List the guests that restores have made and that are still there."""
        known = {int(each["vmid"]) for each in self.fake.ask("GET", "/cluster/resources", {"type": "vm"})}
        return sorted(known & set(self.made))

    def clear(self) -> None:
        """Remove what is left."""
        for vmid in self.left():
            self.fake.locks.pop(vmid, None)
            self.fake.set_state("stopped", vmid)
            self.fake.ask("DELETE", f"/nodes/pve1/{self.fake.kinds[vmid]}/{vmid}", {})
        self.made.clear()
        self.first_starts.clear()
        if self.inner is not None:
            self.inner.halt()

    def acted(self, vmid: int, action: str) -> None:
        """Do what a start or a stop of a restored guest does inside."""
        if vmid not in self.made:
            return
        if action == "start":
            config = self.fake.ask("GET", f"/nodes/pve1/{self.fake.kinds[vmid]}/{vmid}/config", {})
            self.first_starts.setdefault(vmid, config)
        if self.inner is not None:
            self.inner.boot(vmid) if action == "start" else self.inner.halt()

    def _carried(self, method: str, path: str, values: dict[str, str]) -> str:
        kind = "qemu" if "-qemu-" in values["volume"] else "lxc"
        return "#notes of the guest\n" + "".join(f"{name}: {value}\n" for name, value in self.carried[kind].items())

    def _storage(self, method: str, path: str, values: dict[str, str]) -> dict[str, Any]:
        self.fake.ask("GET", path, values)
        return {
            "type": "lvmthin",
            "content": self.content,
            "active": 1,
            "enabled": 1,
            "avail": self.free_bytes,
            "total": 100 * _GIB,
        }

    def _restore(self, method: str, path: str, values: dict[str, str], kind: str) -> str:
        source = values.get("archive") or values.get("ostemplate", "")
        assert values.get("archive") or values.get("restore") == "1", "a guest is made, and not from a backup"
        vmid = int(values["vmid"])
        try:
            # Its schema refuses what Proxmox would refuse; what is left is that it restores no machines.
            if kind == "qemu":
                self.fake.ask("POST", path, values)
        except Answer as answer:
            if "restoring an archive is not supported" not in answer.reason:
                raise
        if vmid in self.taken:
            raise Answer(500, f"unable to restore VM {vmid} - VM {vmid} already exists on node 'pve1'")
        if source not in {each["volid"] for each in self.fake.volumes}:
            raise Answer(500, f"volume '{source}' does not exist")
        made = {name: value for name, value in values.items() if name not in ("description", "onboot", "protection")}
        self.fake.ask("POST", path, made if kind == "lxc" else {"vmid": str(vmid), "scsi0": "local-lvm:4"})
        self.fake.kinds[vmid] = kind
        self.made.append(vmid)
        self.fake.locks[vmid] = "create"
        task = self.fake.new_task("qmrestore" if kind == "qemu" else "vzrestore", str(vmid))
        threading.Thread(target=self._work, args=(task, vmid, kind, dict(values)), daemon=True).start()
        return task.upid

    def _work(self, task: Task, vmid: int, kind: str, values: dict[str, str]) -> None:
        """Restore, as a worker of Proxmox does; told to end, it takes back what it has made."""
        begun = time.monotonic()
        while time.monotonic() - begun < self.seconds and not task.told_to_end.wait(0.02):
            task.log[:] = [
                f"progress {min(99, int(100 * (time.monotonic() - begun) / self.seconds))}% (read 1 bytes, duration 1 sec)"
            ]
        task.log += self.lines
        ended = task.told_to_end.is_set()
        if ended or self.end == "job errors":
            if not self.leaves_rest:
                self.fake.locks.pop(vmid, None)
                self.fake.ask("DELETE", f"/nodes/pve1/{kind}/{vmid}", {})
        else:
            given = {name: values[name] for name in ("onboot", "description", "protection") if name in values}
            if self.forgets_description:
                del given["description"]
            config = {name: value for name, value in self.carried[kind].items() if name not in ("scsi0", "rootfs")}
            self.fake.ask("PUT", f"/nodes/pve1/{kind}/{vmid}/config", {**config, **given})
            if self.inner is not None:
                self.inner.restore()
            self.fake.locks.pop(vmid, None)
        task.exit = "unexpected status" if ended else self.end

    def _change(self, method: str, path: str, values: dict[str, str], kind: str, vmid: str) -> Any:
        if self.keeps_link:
            values = {name: value.replace("link_down=1", "link_down=0") for name, value in values.items()}
        return self.fake.ask(method, path, values)

    def _destroy(self, method: str, path: str, values: dict[str, str], kind: str, vmid: str) -> Any:
        if int(vmid) in self.fake.locks:
            raise Answer(500, f"VM is locked ({self.fake.locks[int(vmid)]})")
        return self.fake.ask(method, path, values)

    def _ping(self, method: str, path: str, values: dict[str, str], kind: str, vmid: str) -> Any:
        if not self.agent_answers or self.fake.state(int(vmid)) != "running":
            raise Answer(500, "QEMU guest agent is not running")
        return {"result": {}}

    def _exec(self, method: str, path: str, values: dict[str, str], kind: str, vmid: str) -> dict[str, int]:
        words, given = values["command"].split("\0"), values.get("input-data", "")
        assert self.inner is not None, "nothing is inside this guest"
        if self.fake.state(int(vmid)) != "running":
            raise Answer(500, "QEMU guest agent is not running")
        if self.before_program is not None:
            self.before_program(words, given)
        number = len(self._programs) + 1
        self._programs[number] = None
        threading.Thread(target=self._run, args=(number, words, given.encode()), daemon=True).start()
        return {"pid": number}

    def _run(self, number: int, words: list[str], given: bytes) -> None:
        assert self.inner is not None
        environment = {**os.environ, "PATH": f"{self.inner.bin}:{os.environ['PATH']}"}
        done = subprocess.run(words, input=given, capture_output=True, timeout=120, check=False, env=environment)
        self._programs[number] = (done.returncode, done.stdout, done.stderr)

    def _exec_status(self, method: str, path: str, values: dict[str, str], kind: str, vmid: str) -> dict[str, Any]:
        ended = self._programs[int(values["pid"])]
        if ended is None:
            return {"exited": False}
        # As Proxmox brings bytes: each as a character of its own.
        return {
            "exited": True,
            "exitcode": ended[0],
            "out-data": ended[1].decode("latin-1"),
            "err-data": ended[2].decode("latin-1"),
        }


_SSHD = """Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host_key
PidFile none
AuthorizedKeysFile {place}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv PATH={bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""


@contextmanager
def node_with_pct(place: Path, inner: InnerGuest, port: int) -> Iterator[dict[str, Any]]:
    """Run a real sshd on loopback whose `pct` runs programs in the inner guest; give the section of the settings that reaches it."""
    place.mkdir(mode=0o700)
    for name in ("host_key", "key", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True, stdin=subprocess.DEVNULL
        )
    shutil.copy(place / "key.pub", place / "authorized_keys")
    host_key = (place / "host_key.pub").read_text().split()
    (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
    (place / "sshd_config").write_text(_SSHD.format(port=port, place=place, bin=inner.bin))
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with open(place / "log", "wb") as log:
        program = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", place / "sshd_config"], stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        yield {
            "port": port,
            "key_file": str(place / "key"),
            "known_hosts_file": str(place / "known_hosts"),
            "addresses": {"pve1": "127.0.0.1"},
        }
    finally:
        program.terminate()
        program.wait(20)
