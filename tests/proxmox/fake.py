"""A Proxmox VE whose backups happen: fakepve, as a program of its own, behind a front that adds what it leaves out.

fakepve carries the schema of the published API: it holds the guests, checks every parameter, starts and stops. The front knows tokens,
and adds what a `vzdump` does over time (the guest's stop and start, its lock, the log, the volume that appears, its end when it is told),
pruning, and faults.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.proxmox.front import API, Answer, Front, serving
from tests.proxmox.trials import Trials
from tests.stack.stack import wait_until

GUEST, MACHINE = 101, 102
GUESTS = [
    {"vmid": GUEST, "type": "lxc", "name": "mail", "status": "running", "config": {"rootfs": "local-lvm:vm-101-disk-0,size=8G"}},
    {"vmid": MACHINE, "type": "qemu", "name": "mailvm", "status": "running", "config": {"scsi0": "local-lvm:vm-102-disk-0,size=4G"}},
]  # fmt: skip
_GIB = 1 << 30


@dataclass
class Task:
    """A task of the front's own."""

    upid: str
    kind: str
    guest: str
    user: str
    started: int
    log: list[str] = field(default_factory=list)
    exit: str | None = None
    told_to_end: threading.Event = field(default_factory=threading.Event)


class FakeProxmox(Front):
    """The front, and what a test may set: how long a backup takes, how it ends, and what is wrong."""

    def __init__(self, place: Path, guests: list[dict[str, Any]]) -> None:
        super().__init__(place)
        self.kinds = {each["vmid"]: each["type"] for each in guests}
        self.backup_seconds = 0.5
        self.backup_end = "OK"
        self.backup_lines: list[str] = []
        self.restarts_after_end = False
        self.lock_lingers_seconds = 0.0
        self.locks: dict[int, str] = {}
        self.content, self.free_bytes, self.active = "iso,vztmpl,backup", 50 * _GIB, True
        self.node_away = False
        self.volumes: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.not_backed_up: list[dict[str, Any]] = []
        self.tasks: dict[str, Task] = {}
        self.trials = Trials(self)
        self._numbers = itertools.count(0x2000)
        self._ticket = ("", "")
        self._behind = ""

    def connect(self, address: str) -> None:
        """Log in to the fakepve behind."""
        self._behind = address
        found = self.ask("POST", "/access/ticket", {"username": "root@pam", "password": "secret"})
        self._ticket = (found["ticket"], found["CSRFPreventionToken"])

    def state(self, vmid: int = GUEST) -> str:
        """Give a guest's state."""
        return str(self.ask("GET", f"/nodes/pve1/{self.kinds[vmid]}/{vmid}/status/current", {})["status"])

    def set_state(self, state: str, vmid: int = GUEST) -> None:
        """Bring a guest to a state."""
        if self.state(vmid) != state:
            word = "start" if state == "running" else "stop"
            self.ask("POST", f"/nodes/pve1/{self.kinds[vmid]}/{vmid}/status/{word}", {})

    def running_backups(self) -> list[Task]:
        """List the backups that run."""
        return [each for each in self.tasks.values() if each.kind == "vzdump" and each.exit is None]

    def add_volume(self, at: datetime, vmid: int = GUEST, *, size: int = 5 * 10**6, **more: Any) -> str:
        """Put a backup on the storage."""
        name = f"local:backup/vzdump-{self.kinds[vmid]}-{vmid}-{at:%Y_%m_%d-%H_%M_%S}.tar.zst"
        self.volumes.append(
            {
                "volid": name,
                "content": "backup",
                "ctime": int(at.timestamp()),
                "size": size,
                "vmid": vmid,
                "format": "tar.zst",
                **more,
            }
        )
        return name

    def answer(self, method: str, path: str, values: dict[str, str]) -> Any:
        if self.node_away and path.startswith("/nodes/pve1"):
            raise Answer(595, "No route to host")
        own = {
            ("POST", r"/nodes/pve1/vzdump"): self._vzdump,
            ("GET", r"/nodes/pve1/tasks"): self._task_list,
            ("GET", r"/nodes/pve1/tasks/(UPID[^/]+)/(status|log)"): self._task,
            ("DELETE", r"/nodes/pve1/tasks/(UPID[^/]+)"): self._end_task,
            ("GET", r"/nodes/pve1/storage/local/status"): self._storage,
            ("GET", r"/nodes/pve1/storage/local/content"): self._content,
            ("GET", r"/nodes/pve1/storage/local/prunebackups"): self._prune_preview,
            ("DELETE", r"/nodes/pve1/storage/local/prunebackups"): self._prune,
            ("GET", r"/nodes/pve1/(?:lxc|qemu)/(\d+)/status/current"): self._current,
            ("POST", r"/nodes/pve1/(?:lxc|qemu)/(\d+)/status/\w+"): self._act,
            **self.trials.routes(),
            ("GET", r"/cluster/backup"): lambda *_: self.jobs,
            ("GET", r"/cluster/backup-info/not-backed-up"): lambda *_: self.not_backed_up,
        }
        path = urllib.parse.unquote(path)
        for (wanted, pattern), handle in own.items():
            if wanted == method and (found := re.fullmatch(pattern, path)):
                if path.endswith(("/status", "/content", "/prunebackups", "/tasks", "/vzdump")) and "UPID" not in path:
                    self.ask(
                        method if method != "DELETE" else "GET", path, values
                    )  # its schema refuses what Proxmox would refuse
                return handle(method, path, values, *found.groups())
        return self.ask(method, path, values)

    def _vzdump(self, method: str, path: str, values: dict[str, str]) -> str:
        guest = int(values["vmid"])
        if "backup" not in self.content:
            raise Answer(500, f"storage '{values['storage']}' does not support backups")
        task = self.new_task("vzdump", str(guest))
        threading.Thread(target=self._back_up, args=(task, guest, values), daemon=True).start()
        return task.upid

    def _back_up(self, task: Task, guest: int, values: Mapping[str, str]) -> None:
        """Do as vzdump does in mode stop; told to end, it leaves the guest as it is, as one that was killed would."""
        task.log += [
            f"INFO: starting new backup job: vzdump {guest} --mode {values['mode']}",
            f"INFO: Starting Backup of VM {guest}",
        ]
        if guest in self.locks:
            task.log.append(f"ERROR: Backup of VM {guest} failed - CT is locked ({self.locks[guest]})")
            task.exit = "job errors"
            return
        self.locks[guest] = "backup"
        ran = self.state(guest) == "running"
        if values["mode"] == "stop" and ran:
            task.log.append("INFO: stopping vm")
            self.set_state("stopped", guest)
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < self.backup_seconds and not task.told_to_end.wait(0.05):
            line = f"INFO:  {min(99, int(100 * passed / self.backup_seconds))}% (1.0 GiB of 4.0 GiB) in 3s, read: 400.0 MiB/s, write: 80.0 MiB/s"
            if self.kinds[guest] == "qemu" and line not in task.log:
                task.log.append(line)
        ended = task.told_to_end.is_set()
        if not ended and self.backup_end != "job errors":
            self.add_volume(datetime.now(UTC), guest, protected=int(values.get("protected", "0")))
        threading.Timer(self.lock_lingers_seconds, self.locks.pop, (guest, None)).start()
        if ran and (not ended or self.restarts_after_end):
            task.log.append("INFO: restarting vm")
            self.set_state("running", guest)
        task.log += [*self.backup_lines, "INFO: Backup job finished"]
        task.exit = "interrupted by signal" if ended else self.backup_end

    def _task_list(self, method: str, path: str, values: dict[str, str]) -> list[dict[str, Any]]:
        found = [each for each in self.tasks.values() if each.kind == values.get("typefilter", each.kind)]
        if values.get("source", "archive") == "active":
            found = [each for each in found if each.exit is None]
        return [
            {
                "upid": each.upid, "node": "pve1", "pid": 1, "pstart": 1, "starttime": each.started, "type": each.kind, "id": each.guest,
                "user": each.user, **({"endtime": each.started + 1, "status": each.exit} if each.exit is not None else {}),
            }
            for each in found
            if values.get("vmid") in (None, each.guest)
        ]  # fmt: skip

    def _task(self, method: str, path: str, values: dict[str, str], upid: str, what: str) -> Any:
        task = self.tasks.get(upid)
        if task is None:
            return self.ask("GET", path, values)
        if what == "log":
            first, count = int(values.get("start", 0)), int(values.get("limit", 50))
            return [{"n": n, "t": line} for n, line in enumerate(task.log, 1)][first : first + count]
        ended = {"status": "stopped", "exitstatus": task.exit} if task.exit is not None else {"status": "running"}
        return {
            "upid": upid,
            "node": "pve1",
            "pid": 1,
            "starttime": task.started,
            "type": task.kind,
            "id": task.guest,
            **ended,
        }

    def _end_task(self, method: str, path: str, values: dict[str, str], upid: str) -> None:
        self.tasks[upid].told_to_end.set()

    def _storage(self, method: str, path: str, values: dict[str, str]) -> dict[str, Any]:
        return {
            "type": "dir",
            "content": self.content,
            "active": int(self.active),
            "enabled": 1,
            "avail": self.free_bytes,
            "total": 100 * _GIB,
        }

    def _content(self, method: str, path: str, values: dict[str, str]) -> list[dict[str, Any]]:
        return [each for each in self.volumes if str(each["vmid"]) == values.get("vmid", str(each["vmid"]))]

    def _current(self, method: str, path: str, values: dict[str, str], vmid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", path, {})
        return found | ({"lock": self.locks[int(vmid)]} if int(vmid) in self.locks else {})

    def _act(self, method: str, path: str, values: dict[str, str], vmid: str) -> Any:
        if int(vmid) in self.locks:
            raise Answer(500, f"CT is locked ({self.locks[int(vmid)]})")
        found = self.ask(method, path, values)
        self.trials.acted(int(vmid), path.rpartition("/")[2])
        return found

    def _prune_preview(self, method: str, path: str, values: dict[str, str]) -> list[dict[str, Any]]:
        """Keep the newest so many; that is all of `prune-backups` that the tests ask for."""
        keep = dict(each.split("=") for each in values.get("prune-backups", "keep-last=100").split(","))
        mine = sorted(
            (each for each in self.volumes if str(each["vmid"]) == values["vmid"]), key=lambda each: -int(each["ctime"])
        )
        free = [each["volid"] for each in mine if not each.get("protected")]
        marks = {name: "keep" if place < int(keep.get("keep-last", 0)) else "remove" for place, name in enumerate(free)}
        return [
            {"volid": each["volid"], "ctime": each["ctime"], "type": values.get("type"), "vmid": each["vmid"], "mark": marks.get(each["volid"], "protected")}
            for each in mine
        ]  # fmt: skip

    def _prune(self, method: str, path: str, values: dict[str, str]) -> str:
        gone = {each["volid"] for each in self._prune_preview(method, path, values) if each["mark"] == "remove"}
        self.volumes = [each for each in self.volumes if each["volid"] not in gone]
        task = self.new_task("prunebackups", values["vmid"])
        task.exit = "OK"
        return task.upid

    def new_task(self, kind: str, guest: str) -> Task:
        """Begin a task of the token's own."""
        now = int(time.time())
        upid = (
            f"UPID:pve1:{next(self._numbers):08X}:{next(self._numbers):08X}:{now:08X}:{kind}:{guest}:{self.token_id}:"
        )
        self.tasks[upid] = Task(upid, kind, guest, self.token_id, now)
        return self.tasks[upid]

    def ask(self, method: str, path: str, values: Mapping[str, str]) -> Any:
        """Ask the fakepve behind."""
        sent = urllib.parse.urlencode(values)
        address = f"{self._behind}{API}{urllib.parse.quote(path)}" + (
            f"?{sent}" if method in ("GET", "DELETE") and sent else ""
        )
        request = urllib.request.Request(
            address, method=method, data=sent.encode() if method in ("POST", "PUT") else None
        )
        request.add_header("Cookie", f"PVEAuthCookie={self._ticket[0]}")
        request.add_header("CSRFPreventionToken", self._ticket[1])
        loose = ssl.create_default_context()
        loose.check_hostname, loose.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(request, context=loose, timeout=20) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            told = json.loads(error.read() or b"{}")
            raise Answer(error.code, error.reason, told.get("errors")) from None


@contextmanager
def fake_proxmox(place: Path, guests: list[dict[str, Any]] | None = None) -> Iterator[FakeProxmox]:
    """Run a Proxmox VE for the block."""
    chosen = GUESTS if guests is None else guests
    place.mkdir(parents=True, exist_ok=True)
    (place / "guests.json").write_text(json.dumps({"guests": chosen}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with open(place / "fakepve.log", "wb") as log:
        program = subprocess.Popen(
            [sys.executable, "-m", "fakepve", str(place / "guests.json"), "--host", "127.0.0.1", "--port", str(port), "--time-scale", "0"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    fake = FakeProxmox(place, chosen)

    def answers() -> bool:
        assert program.poll() is None, (place / "fakepve.log").read_text()
        with suppress(OSError):
            fake.connect(f"https://127.0.0.1:{port}")
            return True
        return False

    try:
        wait_until(answers, 60, "fakepve does not answer")
        with serving(fake):
            yield fake
    finally:
        for each in fake.running_backups():
            each.told_to_end.set()
        program.terminate()
        program.wait(20)


def nights_ago(count: int) -> datetime:
    """Give a moment so many days ago."""
    return datetime.now(UTC) - timedelta(days=count)
