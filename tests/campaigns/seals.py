"""Break encrypted archives in every way, and look whether each is refused.

    python -m tests.campaigns.seals --count 1000

flips bytes, cuts, and moves parts about: out of order, from another archive, missing, doubled, appended; half of the archives have their
record beside them. Prints figures as JSON, with every break that was taken for an archive; ends with 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyrage

from tasks.adapters.archive.archive_source import record_path_of
from tasks.adapters.archive.open_keys import opening_with
from tasks.adapters.archive.reader import check_archive
from tasks.core.errors import Refused
from tests.integration.archives import NAME, make_archive
from tests.integration.broken_seals import BREAKS, break_one


def run(count: int, seed: int) -> dict[str, object]:
    """Try so many breaks, the kinds in turn; return the figures."""
    key = pyrage.x25519.Identity.generate()
    told: Counter[str] = Counter()
    accepted: list[str] = []
    with tempfile.TemporaryDirectory() as directory, opening_with((str(key),)):
        place = Path(directory)
        recipients = (str(key.to_public()),)
        good = make_archive(place / "good", recipients=recipients).path
        other = make_archive(place / "other", name=NAME + "-2", recipients=recipients).path
        check_archive(good)
        kinds = sorted(BREAKS)
        for number in range(count):
            kind = kinds[number % len(kinds)]
            work = place / "work"
            work.mkdir()
            path = work / good.name
            path.write_bytes(break_one(kind, good, other, random.Random(f"{seed} {number}")))
            if number // len(kinds) % 2:
                shutil.copy(record_path_of(good), work)
            try:
                check_archive(path)
                accepted.append(f"{kind}, case {number}")
            except Refused as error:
                told[type(error).__name__] += 1
            shutil.rmtree(work)
    return {"cases": count, "seed": seed, "refused": dict(told), "accepted": accepted}


def main() -> int:
    """Try as many as asked for and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    told = run(given.count, given.seed)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return 1 if told["accepted"] else 0


if __name__ == "__main__":
    sys.exit(main())
