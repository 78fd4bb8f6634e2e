"""Break copies off at random moments, many times, at real targets: nothing is lost, nothing of a backup counts before it is whole.

    python -m tests.campaigns.copies --count 100 [--kind s3 --kind sftp --kind webdav] [--seed N]

Its own command; the test suite tries single moments of each kind (`tests/integration/test_copies*.py`). Each round makes
a backup of some parts and begins to copy it; then the server is killed, the run is killed or told to end, or nothing is.
Every record at the target must be that of a whole archive at any moment, and the next undisturbed run must send what was
missing, and no part a second time that had arrived.
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
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.adapters.host.settings_file import load_settings
from tasks.run.config import InstallationConfig
from tests.cli import PROGRAM
from tests.integration.archives import back_up
from tests.integration.copying import MIB, arrived, copying_to
from tests.settings import write_settings
from tests.targets import Server, serving

KINDS = ("s3", "sftp", "webdav")
WAYS = ("server killed", "run killed", "run told to end", "undisturbed")
SPEED = MIB


def run_round(server: Server, place: Path, repository: Path, number: int, dice: random.Random) -> list[str]:
    """Make a backup, copy it with a disturbance, then without; return what went wrong."""
    config = installation_at(place, server)
    dump = dice.randbytes(dice.randrange(MIB // 2, 4 * MIB))
    made = back_up(config, datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1000 - number), dump=dump)
    way = dice.choice(WAYS)
    process = subprocess.Popen(
        [PROGRAM, "copy", "--settings", str(place / "slow.yaml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wanted, deadline = dice.randrange(made.bytes // MIB + 2), time.monotonic() + 60
    while process.poll() is None and len(arrived(made)) < wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(dice.uniform(0, 1))
    if way == "server killed":
        server.kill()
        process.terminate()
    elif way != "undisturbed":
        process.send_signal(signal.SIGKILL if way == "run killed" else signal.SIGTERM)
    process.wait(60)
    wrong = unwhole(server)
    if server.process is None:
        server.start()
    known = arrived(made)
    done = subprocess.run(
        [PROGRAM, "copy", "--settings", str(place / "quick.yaml"), "--json"], capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    if done.returncode != 0:
        return [*wrong, f"{way}: the next run failed: {done.stderr.strip()[-500:]}"]
    sent = json.loads(done.stdout)["targets"][0]["sent_bytes"]
    if sent > made.bytes - sum(each.bytes for each in known.values()):
        wrong.append(f"{way}: {sent} bytes were sent again, of which {list(known)} had arrived")
    parts = sorted(each for each in (server.files / "bucket").iterdir() if each.name.startswith(made.file))
    if b"".join(each.read_bytes() for each in parts) != (repository / made.file).read_bytes():
        wrong.append(f"{way}: the copy of {made.file} is another")
    print(
        f"{number}: {server.kind}, {way}: {made.bytes} bytes, {sum(each.bytes for each in known.values())} had arrived, {sent} sent",
        flush=True,
    )
    return wrong + unwhole(server)


def unwhole(server: Server) -> list[str]:
    """Name the records at a target whose archive is not wholly there."""
    files = {each.name: each.stat().st_size for each in (server.files / "bucket").iterdir()}
    wrong = []
    for name in files:
        if name.endswith(".manifest.json"):
            try:
                record = json.loads((server.files / "bucket" / name).read_bytes())
            except ValueError:  # being written: the program passes it over
                continue
            there = sum(size for file, size in files.items() if file.startswith(record["file"]))
            wrong += (
                [f"{name} stands at the target, with {there} of {record['bytes']} bytes"]
                if there < record["bytes"]
                else []
            )
    return wrong


def installation_at(place: Path, server: Server) -> InstallationConfig:
    """Give the installation of a place, made once, and its settings with and without a limit of speed."""
    if not (place / "stack").exists():
        copying_to(place, "away:bucket", sections={"away": server.section})
        target = {"name": "a", "remote": "away:bucket", "part_bytes": MIB, "retention": {"keep_last": 1000}}
        wanted = {
            "directory": place / "stack",
            "repository": place / "backups",
            "rclone_config": str(place / "rclone.conf"),
        }
        for name, limit in (("slow", {"bandwidth": SPEED}), ("quick", {})):
            write_settings(place / f"{name}.yaml", {"main": {**wanted, "copies": [{**target, **limit}]}})
    return InstallationConfig("main", load_settings(place / "quick.yaml").installations["main"])


def main() -> int:
    """Run the rounds at each kind of target; the exit code tells whether anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="rounds at each kind of target")
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    dice, results, wrong = random.Random(options.seed), Counter[str](), list[str]()
    print(f"seed {options.seed}", flush=True)
    for kind in options.kind or KINDS:
        with tempfile.TemporaryDirectory(prefix="copies-") as scratch:
            place = Path(scratch)
            (place / "state").mkdir(mode=0o700)
            os.environ["MAILARCHIVER_BACKUP_STATE"] = str(place / "state")
            with serving(place, kind) as server:
                for number in range(options.count):
                    found = run_round(server, place, place / "backups", number, dice)
                    results["wrong" if found else "right"] += 1
                    wrong += found
    print(*wrong, sep="\n")
    print(f"{sum(results.values())} rounds: {results['wrong']} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
