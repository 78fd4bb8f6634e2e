"""Kill backups of a guest of this host at random moments, many times: P1 for what is stopped outside the stack.

    python -m tests.campaigns.guests lxc|vm [--count 20] [--seed N]

Its own command, as root; the test suite runs a short version (`tests/integration/test_lxc_backup.py`, `test_vm_backup.py`). After each
kill the container or virtual machine must be in its former state within 60 s and stay so.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.table import Table

from tasks.adapters.host.journals import list_journals, read_journal
from tasks.adapters.host.settings_file import SETTINGS_VARIABLE
from tasks.adapters.host.state import STATE_VARIABLE
from tasks.recovery.recover import recover
from tests.campaigns.kills import watchdogs
from tests.campaigns.proxmox import HOW, PROMISED_SECONDS
from tests.cli import PROGRAM, start_program
from tests.guests.containers import containers_of, lxc_problem, make_container
from tests.guests.machines import libvirt_problem, make_machine, running_libvirt
from tests.settings import write_settings
from tests.stack.stack import wait_until

BALLAST_BYTES = 40 << 20
STOP_SECONDS = 3


@dataclass(frozen=True)
class Kill:
    """One kill: how and when, the container's state before and when we died, and how long the way back took."""

    victim: str
    how: str
    after_seconds: float
    former: str
    at_death: str
    back_seconds: float


class Guest(Protocol):
    """What the campaign asks of a guest: its state is RUNNING or STOPPED, as LXC says."""

    @property
    def name(self) -> str: ...

    def state(self) -> str: ...

    def start(self) -> None: ...

    def end(self) -> None: ...


SetVariable = Callable[[str, str], object]


def now() -> datetime:
    """Give the present moment."""
    return datetime.now(UTC)


def kill_once(
    kind: str, guest: Guest, victim: str, how: signal.Signals, after_seconds: float, former: str, *, during: bool
) -> Kill:
    """Begin a backup, kill it (so long after the guest was asked to stop, where it is to be `during` that), and see the guest come back."""
    guest.start() if former == "RUNNING" else guest.end()
    child = start_program([PROGRAM, "backup", kind, "--json"])
    if during and former == "RUNNING":
        wait_until(lambda: was_asked() or not child_lives(child.pid), 60, "the guest was not asked to stop")
    time.sleep(after_seconds)
    at_death = guest.state()
    for pid in [*(watchdogs() if victim != "flow" else []), child.pid]:
        with suppress(ProcessLookupError):  # it was quicker
            os.kill(pid, how)
    begun = time.monotonic()
    child.wait(120)
    if victim != "flow":
        # As its timer does, each minute.
        wait_until(lambda: all(each.settled for each in recover()), PROMISED_SECONDS, "recover does not settle it")

    def settled() -> bool:
        return guest.state() == former and not list_journals()

    wait_until(
        settled,
        PROMISED_SECONDS,
        f"after {how.name} at {after_seconds:.2f} s the guest is {guest.state()}, was {former}; {list_journals()}",
    )
    back_seconds = time.monotonic() - begun
    # What was asked for at the last moment may come late: it must not be down a moment later either.
    time.sleep(1.0)
    assert settled(), f"after {how.name} at {after_seconds:.2f} s it is {guest.state()}"
    return Kill(victim, how.name, after_seconds, former, at_death, back_seconds)


def was_asked() -> bool:
    """Tell whether a run has asked the guest to stop."""
    found = [read_journal(path) for path in list_journals()]
    return any(each is not None and each.body.get("asked") for each in found)


def child_lives(pid: int) -> bool:
    """Tell whether a process that we started is still there."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def run_lxc(
    count: int, *, seed: int, place: Path, containers: Path, set_variable: SetVariable = os.environ.__setitem__
) -> list[Kill]:
    """Kill so many backups of a container below `containers`."""
    guest = make_container(containers, f"killed-{seed}", halt_seconds=0.7)
    (guest.root / "srv/ballast").write_bytes(random.Random(seed).randbytes(BALLAST_BYTES))
    section = {"containers": [guest.name], "path": str(containers), "stop_seconds": STOP_SECONDS}
    return _run("lxc", guest, section, count, seed, place, set_variable)


def run_vm(
    count: int, *, seed: int, place: Path, images: Path, set_variable: SetVariable = os.environ.__setitem__
) -> list[Kill]:
    """Kill so many backups of a virtual machine whose disks are below `images`; libvirt runs."""
    guest = make_machine(images, f"killed-{seed}")
    (images / guest.name / "data.raw").write_bytes(random.Random(seed).randbytes(BALLAST_BYTES))
    section = {"domains": [guest.name], "images": str(images), "stop_seconds": STOP_SECONDS}
    try:
        return _run("vm", guest, section, count, seed, place, set_variable)
    finally:
        guest.remove()


def _run(
    kind: str, guest: Guest, section: dict[str, object], count: int, seed: int, place: Path, set_variable: SetVariable
) -> list[Kill]:
    dice = random.Random(seed)
    (place / "installation").mkdir(exist_ok=True)
    main = {"directory": place / "installation", "repository": place / "backups", "format": "guide", kind: section}
    set_variable(SETTINGS_VARIABLE, str(write_settings(place / "settings.yaml", {"main": main})))
    kills = []
    for number in range(count):
        former = "STOPPED" if number % 5 == 4 else "RUNNING"
        # Every second kill waits until the guest was asked to stop, for from there on most is at stake.
        during = number % 2 == 0
        after = dice.uniform(0.0, 2.5 if during else 1.5)
        kills.append(kill_once(kind, guest, *dice.choice(HOW), after, former, during=during))
    guest.end()
    return kills


def main() -> None:
    """Run the campaign and tell what came of each kill."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=["lxc", "vm"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    if problem := lxc_problem() if chosen.kind == "lxc" else libvirt_problem():
        raise SystemExit(problem)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(dir="/var/tmp") as guests:
        place = Path(scratch)
        (place / "state").mkdir(mode=0o700)
        os.environ[STATE_VARIABLE] = str(place / "state")
        Path(guests).chmod(0o755)
        if chosen.kind == "lxc":
            with containers_of(Path(guests)):
                kills = run_lxc(chosen.count, seed=chosen.seed, place=place, containers=Path(guests))
        else:
            with running_libvirt(place):
                kills = run_vm(chosen.count, seed=chosen.seed, place=place, images=Path(guests))
    table = Table("victim", "how", "after", "former", "when we died", "back after", title=f"seed {chosen.seed}")
    for each in kills:
        table.add_row(
            each.victim, each.how, f"{each.after_seconds:.2f} s", each.former, each.at_death, f"{each.back_seconds:.1f} s",
        )  # fmt: skip
    Console().print(table)
    print(f"{len(kills)} kills; the slowest way back took {max(each.back_seconds for each in kills):.1f} s")


if __name__ == "__main__":
    main()
