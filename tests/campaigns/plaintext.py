"""Look for plaintext and keys on a whole disk, while encrypted backups, verifications and restores work, end, and are killed.

    python -m tests.campaigns.plaintext --rounds 30 [--seed N]

Everything is on one disk of the campaign's own: the stack, the repository, the state, TMPDIR, and a Docker engine with its
containers and volumes. Its files are looked at all the time, and all its bytes, deleted ones too, after every few rounds
and at the end: no row of a dump, no piece of an archive's plaintext and no one-time key may ever have been there. A control
shows first that what was deleted is found. The suite has a short version (`tests/end_to_end/test_encrypted_backups.py`).
Needs root, and memory-backed /dev/shm.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyrage

from tasks.adapters.archive.open_keys import IDENTITY_VARIABLE
from tasks.adapters.host.memory_place import MEMORY_VARIABLE
from tasks.adapters.host.state import STATE_VARIABLE
from tests.cli import PROGRAM
from tests.plaintext import ROW, Disk, Watch, disk, pieces_of, plant, watching
from tests.settings import write_settings
from tests.stack.images import POSTGRES, application_image, ensure_images
from tests.stack.private_engine import private_engine
from tests.stack.stack import Stack, create_stack

WAYS = (("backup", "hot"), ("verify", "latest"), ("restore", "latest", "--yes", "--no-quarantine"))
EVERY_ROUNDS = 10
DISK_MEGABYTES = 6000


class Campaign:
    """The places, and what was found so far."""

    def __init__(self, whole: Disk, memory: Path, stack: Stack) -> None:
        self.whole, self.memory, self.stack = whole, memory, stack
        self.repository, self.settings = whole.place / "backups", whole.place / "settings.yaml"
        self.key = pyrage.x25519.Identity.generate()
        identity = memory / "identity"
        identity.write_text(f"{self.key}\n")
        identity.chmod(0o600)
        os.environ[IDENTITY_VARIABLE] = str(identity)
        write_settings(
            self.settings,
            {"main": {"directory": stack.directory, "repository": self.repository, "retention": {"keep_last": 1000}, "encryption": {"recipients": [str(self.key.to_public())]}}},
        )  # fmt: skip
        self.told, self.wrong = Counter[str](), list[str]()
        self.pieces: dict[str, bytes] = {}
        self.lasted = dict.fromkeys(WAYS, 8.0)

    def run(self, words: tuple[str, ...], kill_after: float | None) -> None:
        """Run a command; kill it after so many seconds, where it still runs then."""
        # With the operator's own key in its environment a verification would not use the one-time key.
        without_key = words[0] != "restore"
        environment = {key: value for key, value in os.environ.items() if key != IDENTITY_VARIABLE or not without_key}
        begun = time.monotonic()
        process = subprocess.Popen(
            [PROGRAM, *words, "--settings", str(self.settings), "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        try:
            out, _ = process.communicate(timeout=kill_after or 300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            self.told[f"{words[0]}, killed"] += 1
            return
        self.lasted[words] = time.monotonic() - begun
        answer = json.loads(out) if out.strip() else {}
        if process.returncode == 0:
            self.told[f"{words[0]}, done"] += 1
        elif answer.get("verdict") == "not verifiable":
            self.told["verify, without its key"] += 1
        else:
            self.wrong.append(f"{' '.join(words)} failed: {str(answer)[:300]}")

    def look_at_all(self, watch: Watch) -> None:
        """Search all bytes of the disk."""
        for path in self.repository.glob("*.age.tar"):
            if path.name not in self.pieces:
                self.pieces |= pieces_of(path, str(self.key), 4)
        needles = {"a row of a dump": ROW, "the recovery key": str(self.key).encode(), **self.pieces}
        needles |= {name: key.encode() for key, name in watch.keys.items()}
        self.wrong += sorted(f"{each} on the disk" for each in self.whole.hits(needles))
        print(f"all bytes of the disk searched for {len(needles)} things: {len(self.wrong)} found or wrong", flush=True)


def run(rounds: int, seed: int) -> Campaign:
    """Run the rounds on a disk of their own."""
    dice = random.Random(seed)
    ensure_images()
    with (
        tempfile.TemporaryDirectory(prefix="plaintext-") as place,
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory,
    ):
        with disk(Path(place) / "disk", DISK_MEGABYTES) as whole:
            whole.require_sight()
            for variable, name in ((STATE_VARIABLE, "state"), ("TMPDIR", "tmp")):
                (whole.place / name).mkdir(mode=0o700)
                os.environ[variable] = str(whole.place / name)
            os.environ[MEMORY_VARIABLE] = f"{memory}/keys"
            with private_engine(whole.place / "engine", POSTGRES, application_image()):
                stack = create_stack(whole.place / "stack", megabytes=1)
                try:
                    return _rounds(Campaign(whole, Path(memory), stack), rounds, dice)
                finally:
                    stack.destroy()


def _rounds(campaign: Campaign, rounds: int, dice: random.Random) -> Campaign:
    plant(campaign.stack.psql)
    campaign.run(WAYS[0], None)
    engine_root = campaign.whole.place / "engine" / "data"
    places = [campaign.whole.place / name for name in ("backups", "state", "tmp", "stack")]
    with watching(lambda: places, memory=campaign.memory / "keys", engine_root=engine_root) as watch:
        for number in range(1, rounds + 1):
            words = dice.choice(WAYS)
            kill_after = dice.uniform(0.5, campaign.lasted[words]) if dice.random() < 0.6 else None
            campaign.run(words, kill_after)
            print(
                f"{number}: {' '.join(words)}, {f'killed after {kill_after:.1f} s' if kill_after else 'to its end'}",
                flush=True,
            )
            if number % EVERY_ROUNDS == 0:
                campaign.look_at_all(watch)
        campaign.run(("recover",), None)
        campaign.run(WAYS[0], None)
        campaign.run(WAYS[1], None)
        campaign.look_at_all(watch)
    campaign.wrong += sorted(watch.found)
    newest = max(campaign.repository.glob("*.age.tar")).name
    left = [each.read_bytes() for each in (campaign.memory / "keys").glob("*")]
    if any(newest.encode() in each for each in left):
        campaign.wrong.append(f"the key of {newest} is there after its verification")
    campaign.told |= Counter(
        {"looks at all files": watch.looks, "files read": watch.files, "one-time keys seen": len(watch.keys)}
    )
    return campaign


def main() -> int:
    """Run, and print the figures; the exit code tells whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    found = run(given.rounds, given.seed)
    with suppress(BrokenPipeError):
        print(json.dumps({**found.told, "wrong": found.wrong}, indent=1))
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
