"""Kill backups of guests at random moments, many times, against a Proxmox of our own: P1 for what is stopped on another machine.

    python -m tests.campaigns.proxmox --count 20 [--seed N] [--what backups|verifications]

Its own command; the test suite runs a short version (`tests/integration/test_proxmox_backup.py`). After each kill the guest must be in
its former state within 60 s, no task of ours may be at work on it, and no journal may stay. The fake's `vzdump` leaves a guest stopped
when it is told to end, which is the worst that Proxmox's own may do. Verifications are killed while the guest is restored, started, or
waited for: what they had restored must be gone, and nothing else changed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.adapters.host.journals import list_journals
from tasks.adapters.host.settings_file import SETTINGS_VARIABLE
from tasks.adapters.host.state import STATE_VARIABLE
from tasks.recovery.recover import recover
from tests.campaigns.kills import watchdogs
from tests.cli import PROGRAM, start_program
from tests.proxmox.fake import GUEST, MACHINE, FakeProxmox, fake_proxmox, nights_ago
from tests.settings import write_settings
from tests.stack.stack import wait_until

PROMISED_SECONDS = 60.0
# Where the watchdog is killed too, `recover` brings the guest back, as its timer does.
HOW = (
    ("flow", signal.SIGKILL),
    ("flow", signal.SIGTERM),
    ("flow and watchdog", signal.SIGKILL),
    ("flow", signal.SIGINT),
)


@dataclass(frozen=True)
class Kill:
    """One kill: how and when, the guest's state before, what it was when we died, and how long the way back took."""

    victim: str
    how: str
    after_seconds: float
    former: str
    at_death: str
    back_seconds: float


def kill_once(
    fake: FakeProxmox,
    settings: Path,
    victim: str,
    how: signal.Signals,
    after_seconds: float,
    former: str,
    *,
    during: bool,
) -> Kill:
    """Begin a backup, kill it (so long after its beginning at Proxmox, where it is to be `during` that), and see the guest come back."""
    fake.set_state(former)
    words = [PROGRAM, "backup", "proxmox", "--settings", str(settings), "--json"]
    child = start_program(words)
    if during:
        wait_until(fake.running_backups, 60, "no backup began")
    time.sleep(after_seconds)
    at_death = fake.state()
    for pid in [*(watchdogs() if victim != "flow" else []), child.pid]:
        with suppress(ProcessLookupError):  # it was quicker
            os.kill(pid, how)
    begun = time.monotonic()
    child.wait(120)
    if victim != "flow":
        assert all(each.settled for each in recover())

    def settled() -> bool:
        return fake.state() == former and not list_journals() and not fake.running_backups()

    wait_until(
        settled,
        PROMISED_SECONDS,
        f"after {how.name} at {after_seconds:.2f} s the guest is {fake.state()}, was {former}",
    )
    back_seconds = time.monotonic() - begun
    # What was asked for at the last moment is begun late: it must not be down a moment later either.
    time.sleep(1.0)
    assert settled(), f"after {how.name} at {after_seconds:.2f} s something began afterwards"
    return Kill(victim, how.name, after_seconds, former, at_death, back_seconds)


def run(count: int, *, seed: int, place: Path) -> list[Kill]:
    """Kill so many backups."""
    dice = random.Random(seed)
    (place / "installation").mkdir()
    kills = []
    with fake_proxmox(place / "proxmox") as fake:
        section = {**fake.settings(), "guests": [GUEST], "storage": "local"}
        settings = write_settings(
            place / "settings.yaml",
            {"main": {"directory": place / "installation", "repository": place / "backups", "proxmox": section}},
        )
        os.environ[SETTINGS_VARIABLE] = str(settings)
        for number in range(count):
            fake.backup_seconds, fake.restarts_after_end = dice.uniform(0.5, 5.0), dice.random() < 0.3
            former = "stopped" if number % 5 == 4 else "running"
            # Every second kill waits for the backup's beginning, for from there on most is at stake.
            during = number % 2 == 0
            after = dice.uniform(0.0, fake.backup_seconds if during else 2.5)
            kills.append(kill_once(fake, settings, *dice.choice(HOW), after, former, during=during))
    return kills


def kill_verification(
    fake: FakeProxmox, settings: Path, victim: str, how: signal.Signals, after_seconds: float, *, during: bool
) -> Kill:
    """Begin a verification, kill it, and see what it had restored removed, and the guests as they were."""
    fake.trials.made.clear()
    fake.requests.clear()
    child = start_program([PROGRAM, "verify-guest", "--settings", str(settings), "--json"])
    if during:
        wait_until(lambda: fake.trials.made, 60, "no restore began")
    time.sleep(after_seconds)
    left = fake.trials.left()
    at_death = (
        f"guest {left[0]} {'locked' if left[0] in fake.locks else fake.state(left[0])}" if left else "nothing restored"
    )
    for pid in [*(watchdogs() if victim != "flow" else []), child.pid]:
        with suppress(ProcessLookupError):  # it was quicker
            os.kill(pid, how)
    begun = time.monotonic()
    child.wait(120)
    if victim != "flow":
        wait_until(lambda: all(each.settled for each in recover()), PROMISED_SECONDS, "`recover` does not settle it")

    def settled() -> bool:
        return not fake.trials.left() and not list_journals()

    wait_until(settled, PROMISED_SECONDS, f"after {how.name} at {after_seconds:.2f} s {fake.trials.left()} is left")
    back_seconds = time.monotonic() - begun
    time.sleep(1.0)
    assert settled(), f"after {how.name} at {after_seconds:.2f} s something began afterwards"
    assert (fake.state(), fake.state(MACHINE)) == ("running", "running")
    touched = [path for method, path in fake.requests if method != "GET" and f"/{MACHINE}" in path]
    assert touched == [], touched
    return Kill(victim, how.name, after_seconds, "running", at_death, back_seconds)


def run_verifications(count: int, *, seed: int, place: Path) -> list[Kill]:
    """Kill so many verifications."""
    dice = random.Random(seed)
    (place / "installation").mkdir()
    kills = []
    with fake_proxmox(place / "proxmox") as fake:
        verification = {"storage": "local-lvm", "ids": [9000, 9010], "start_minutes": 0.1}
        section = {**fake.settings(), "guests": [MACHINE], "storage": "local", "verification": verification}
        settings = write_settings(
            place / "settings.yaml",
            {"main": {"directory": place / "installation", "repository": place / "backups", "proxmox": section}},
        )
        os.environ[SETTINGS_VARIABLE] = str(settings)
        fake.add_volume(nights_ago(1), MACHINE)
        fake.trials.agent_answers = False
        for number in range(count):
            fake.trials.seconds = dice.uniform(0.2, 4.0)
            during = number % 3 != 0
            after = dice.uniform(0.0, fake.trials.seconds + 5.0 if during else 4.0)
            kills.append(kill_verification(fake, settings, *dice.choice(HOW), after, during=during))
    return kills


def main() -> None:
    """Run the campaign and tell what came of each kill."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--what", choices=("backups", "verifications"), default="backups")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "state").mkdir(mode=0o700)
        os.environ[STATE_VARIABLE] = str(place / "state")
        campaign = run if chosen.what == "backups" else run_verifications
        kills = campaign(chosen.count, seed=chosen.seed, place=place)
    table = Table("victim", "how", "after", "former", "when we died", "back after", title=f"seed {chosen.seed}")
    for each in kills:
        table.add_row(
            each.victim,
            each.how,
            f"{each.after_seconds:.2f} s",
            each.former,
            each.at_death,
            f"{each.back_seconds:.1f} s",
        )
    Console().print(table)
    print(f"{len(kills)} kills; the slowest way back took {max(each.back_seconds for each in kills):.1f} s")


if __name__ == "__main__":
    main()
