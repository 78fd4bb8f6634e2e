"""Kill what makes, merges and prunes chains, and flip bytes in their links: a backup that is kept can be restored, or says what is wrong.

    python -m tests.campaigns.chains --count 500 [--verify-every 25] [--seed N]

Each round either kills a run (an incremental or full backup, a synthetic full one, retention) at a random moment, or flips a byte of a
random archive. After a kill every backup that is listed has all that it builds on, and the newest one's chain is read to its last byte; now
and then it is restored on staging. After a flip `check` refuses the backups that need the archive, naming it, and no others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.adapters.host.state import STATE_VARIABLE
from tests.cli import PROGRAM, run_program, start_program
from tests.settings import write_settings
from tests.stack.images import ensure_images
from tests.stack.stack import Stack, create_stack

ACTIONS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("backup", "online"), 10), (("backup", "online", "--full"), 2), (("backup", "synthetic"), 3), (("prune",), 6),
)  # fmt: skip
FLIPS_OF_TEN = 2
# Of a kind of run whose length is not known yet.
FIRST_MOMENTS_SECONDS = 2.5
POLL_SECONDS = 0.002
ANSWERS = (0, 1, 75, -signal.SIGKILL, 128 + signal.SIGTERM, 130)


@dataclass
class Scene:
    """A small stack, its repository of chains, and what has happened so far."""

    stack: Stack
    place: Path
    dice: random.Random
    seen: Counter[str] = field(default_factory=Counter)
    # How long a run of each kind that nobody ended took: later ones are killed within that time.
    seconds: dict[tuple[str, ...], float] = field(default_factory=dict)

    @property
    def repository(self) -> Path:
        return self.place / "backups"

    def words(self, *words: str) -> list[str]:
        return [PROGRAM, *words, "--settings", str(self.place / "settings.yaml"), "--json"]

    def run(self, *words: str) -> tuple[int, Any, str]:
        """Run a command to its end."""
        code, stdout, stderr = run_program(self.words(*words), timeout_seconds=600)
        return code, json.loads(stdout) if stdout.strip() else None, stderr

    def must(self, *words: str) -> Any:
        """Run a command that has to succeed."""
        code, value, stderr = self.run(*words)
        assert code == 0, f"{words} ended with {code}: {value} {stderr[-2000:]}"
        return value

    def manifests(self) -> dict[str, dict[str, Any]]:
        """Read the manifest of each backup whose archive and record are there."""
        found = {}
        for record in self.repository.glob("*.manifest.json"):
            told = json.loads(record.read_text())
            if (self.repository / told["file"]).is_file():
                found[told["manifest"]["name"]] = told
        return found


def kill_once(scene: Scene) -> None:
    """Kill a run at a random moment, settle it, and see that what is kept is whole."""
    dice = scene.dice
    words = dice.choices([each for each, _ in ACTIONS], [weight for _, weight in ACTIONS])[0]
    scene.stack.psql(
        "CREATE TABLE IF NOT EXISTS nights (n int, text text); INSERT INTO nights SELECT n, md5(random()::text) FROM generate_series(1, 200) n"
    )
    how = dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
    child = start_program(scene.words(*words))
    begun = time.monotonic()
    moment = dice.uniform(0, scene.seconds.get(words, FIRST_MOMENTS_SECONDS))
    while child.poll() is None and time.monotonic() < begun + moment:
        time.sleep(POLL_SECONDS)
    killed = child.poll() is None
    heard = not killed or catches(child.pid, signal.SIGTERM)
    if killed:
        os.kill(child.pid, how)
    code = child.wait(300)
    if not killed:
        scene.seconds[words] = time.monotonic() - begun
    scene.seen[f"{' '.join(words)}: {how.name if killed else 'not killed'}"] += 1
    # A signal before the program listens for it ends it as it ends any program: it has begun nothing.
    assert code in ANSWERS or (code == -signal.SIGTERM and not heard), f"{words} ended with {code}"
    scene.must("recover")
    see_whole(scene)


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal (proc_pid_status(5), SigCgt); one that is gone needs none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(mask >> (number - 1) & 1)


def see_whole(scene: Scene) -> None:
    """See that each backup which is listed has what it builds on, and read the newest one's chain."""
    there = scene.manifests()
    listed = {each["name"] for each in scene.must("list")}
    for name, record in there.items():
        for link in record["manifest"].get("parents", ()):
            assert name not in listed or there.get(link["name"], {}).get("sha256") == link["sha256"], (
                f"{name} is kept, and {link['name']}, which it builds on, is not"
            )
    if listed:
        scene.must("check", "latest")
    # What a partial archive is goes with the next run that holds the lock.
    assert not [each.name for each in scene.repository.iterdir() if each.name.endswith(".copy")]


def flip_once(scene: Scene) -> None:
    """Flip a byte of an archive: what needs it is refused with its name, everything else is as it was."""
    there = scene.manifests()
    if not there:
        return
    victim = scene.dice.choice(sorted(there))
    archive = scene.repository / there[victim]["file"]
    before = archive.read_bytes()
    at = scene.dice.randrange(len(before))
    altered = bytearray(before)
    altered[at] ^= 1 << scene.dice.randrange(8)
    archive.write_bytes(bytes(altered))
    for name in sorted([*scene.dice.sample(sorted(there), min(4, len(there))), victim]):
        needs = {each["name"] for each in there[name]["manifest"].get("parents", ())} | {name}
        code, _, stderr = scene.run("check", name)
        assert (code != 0) is (victim in needs), (
            f"byte {at} of {archive.name} flipped, and check {name} ended with {code}: {stderr}"
        )
        assert victim not in needs or victim == name or archive.name in stderr, (
            f"check {name} does not name {archive.name}: {stderr}"
        )
    archive.write_bytes(before)
    scene.seen["flipped"] += 1


def run(count: int, verify_every: int, seed: int, directory: Path | None) -> Counter[str]:
    """Run so many rounds; raise AssertionError where a promise was not kept."""
    ensure_images()
    with tempfile.TemporaryDirectory(prefix="mailarchiver-backup-chains-", dir=directory) as made:
        place = Path(made)
        os.environ[STATE_VARIABLE] = str(place / "state")
        stack = create_stack(place / "stack", megabytes=1)
        scene = Scene(stack, place, random.Random(seed))
        try:
            about = {
                "directory": stack.directory, "repository": place / "backups", "incremental": {"kind": "auto", "full_after_links": 8},
                "retention": {"keep_last": 3, "minimum_verified": 1},
            }  # fmt: skip
            write_settings(place / "settings.yaml", {"main": about})
            scene.must("backup", "online")
            for number in range(1, count + 1):
                flip_once(scene) if scene.dice.randrange(10) < FLIPS_OF_TEN else kill_once(scene)
                if number % verify_every == 0:
                    assert scene.must("verify", "latest")["verdict"] == "verified"
                    scene.seen["verified"] += 1
                if number % 25 == 0:
                    print(f"{number} rounds: {dict(scene.seen)}", flush=True)
        finally:
            stack.destroy()
        return scene.seen


def main() -> int:
    """Run the campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--verify-every", type=int, default=25)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    print(json.dumps(run(options.count, options.verify_every, options.seed, options.directory), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
