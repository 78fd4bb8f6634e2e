"""Look for canaries: secrets of a test's own, in everything that a run starts, says, makes and leaves."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors

from tests.stack.stack import Stack

LOOK_SECONDS = 0.03
LOOKS_AT_A_NEW_ONE = 20


@dataclass
class Seen:
    """Everything that was seen, each text once with where; texts of production's own containers are not looked at."""

    texts: dict[bytes, str] = field(default_factory=dict)
    looked: int = 0
    containers: set[str] = field(default_factory=set)
    # Threads may still follow a log while what was seen is looked through.
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, text: bytes | str, where: str) -> None:
        """Remember a text."""
        with self._lock:
            self.texts.setdefault(text if isinstance(text, bytes) else text.encode(errors="replace"), where)

    def add_files(self, *places: Path, without: Collection[str] = ()) -> None:
        """Remember the files below these places, but for those whose path has one of these words in it."""
        for place in places:
            for path in [place, *place.rglob("*")]:
                if path.is_file() and not path.is_symlink() and not any(word in str(path) for word in without):
                    self.add(path.read_bytes(), str(path))

    def hits(self, canaries: dict[str, str]) -> list[str]:
        """Name each canary that was seen, and where; in base64 too."""
        with self._lock:
            texts = list(self.texts.items())
        found = []
        for name, canary in canaries.items():
            forms = [canary.encode(), *_in_base64(canary)]
            found += [
                f"{name} in {where}: ...{_around(text, form)!r}..."
                for text, where in texts
                for form in forms
                if form in text
            ]
        return found


def _in_base64(canary: str) -> list[bytes]:
    """Give what a text becomes in base64 inside of another, for each way in which it may lie there."""
    return [base64.b64encode(b"x" * shift + canary.encode())[4 if shift else 0 : -4] for shift in range(3)]


def _around(text: bytes, form: bytes) -> bytes:
    at = text.index(form)
    return text[max(0, at - 80) : at + len(form) + 20]


def open_to_others(*places: Path, without: Collection[str] = ()) -> list[str]:
    """Name the files and directories below these places that others than their owner may read, write or enter."""
    return [
        f"{path} {stat.S_IMODE(path.lstat().st_mode):o}"
        for place in places
        for path in [place, *place.rglob("*")]
        if not path.is_symlink() and path.lstat().st_mode & 0o077 and not any(word in str(path) for word in without)
    ]


@contextmanager
def watched(production: Stack, *, exempt: Sequence[str] = ()) -> Iterator[Seen]:
    """Look at all processes and containers again and again during the block, and follow what Docker tells.

    A process whose environment is a secret's proper place is named by a word of its command line in `exempt`.
    """
    seen, over = Seen(), threading.Event()
    own = {production.container(service).id for service in ("postgres", "mailarchive-app")}
    client = docker.from_env()
    events = client.events(decode=True)
    threads = [
        threading.Thread(target=_watch_processes, args=(seen, over, own, tuple(exempt)), daemon=True),
        threading.Thread(target=_watch_containers, args=(seen, client, events, own), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        events.close()
        for thread in threads:
            thread.join(10)
        client.close()


def _watch_processes(seen: Seen, over: threading.Event, own: set[str], exempt: tuple[str, ...]) -> None:
    known: dict[str, bytes] = {}
    looks: dict[str, int] = {}
    while not over.wait(LOOK_SECONDS):
        there = {name for name in os.listdir("/proc") if name.isdecimal()}
        looks = {name: looks.get(name, -1) + 1 for name in there}
        known = {name: command for name, command in known.items() if name in there}
        for name, number in looks.items():
            # A process becomes another program soon after its start, if ever: an old one is looked at now and then.
            if name == str(os.getpid()) or (number > LOOKS_AT_A_NEW_ONE and number % LOOKS_AT_A_NEW_ONE):
                continue
            place = Path("/proc", name)
            with suppress(OSError):
                command = (place / "cmdline").read_bytes()
                if not command or known.get(name) == command:
                    continue
                known[name] = command
                seen.add(command, "a command line")
                seen.looked += 1
                # PostgreSQL's container has its password in its environment: that is the image's way, and the operator's.
                if any(each in (place / "cgroup").read_text() for each in own) or _is_below(place, own):
                    continue
                if not any(word.encode() in command for word in exempt):
                    seen.add((place / "environ").read_bytes(), f"the environment of {command[:200]!r}")


def _is_below(place: Path, own: set[str]) -> bool:
    """Tell whether a process lives in one of these containers, where control groups do not say so."""
    if os.readlink(place / "ns/mnt") == os.readlink("/proc/self/ns/mnt"):
        return False
    mounts = (place / "mountinfo").read_text()
    return any(f"/containers/{each}/" in mounts for each in own)


def _watch_containers(seen: Seen, client: Any, events: Any, own: set[str]) -> None:
    with suppress(Exception):  # the stream is closed under us at the end
        for event in events:
            seen.add(json.dumps(event), "an event of Docker's")
            if event.get("Type") != "container" or event["id"] in own:
                continue
            if event["Action"] in ("create", "start"):
                seen.containers.add(event["id"])
                with suppress(docker.errors.APIError):
                    seen.add(json.dumps(client.api.inspect_container(event["id"])), "docker inspect")
            if event["Action"] == "start":
                threading.Thread(target=_follow_log, args=(seen, event["id"]), daemon=True).start()


def _follow_log(seen: Seen, container: str) -> None:
    with suppress(Exception):  # it may be gone at any moment
        client = docker.from_env()
        for line in client.api.attach(container, stream=True, logs=True):
            seen.add(line, f"the log of container {container[:12]}")
