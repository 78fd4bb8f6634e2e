"""Compare an installed version of the program with another, turn by turn on one stack: is it as quick as it was?

    python -m tests.benchmarks.versions OLDER NEWER [--megabytes 1500] [--rounds 3]

Both are paths of `mailarchiver-backup`, each in a virtual environment of its own. Two runs of the other benchmarks say
little of two versions: machines, and a machine's days, differ by more. Needs root and an idle machine.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.adapters.host.state import STATE_VARIABLE
from tests.benchmarks.measure import measure, settle
from tests.stack.images import ensure_images
from tests.stack.stack import Stack, create_stack

# A backup with its words, and the restore of it.
TURNS = (
    (("hot", "--format", "guide"), "restore from dump"),
    (("hot", "--format", "fast"), "restore from fast dump"),
    (("complete",), "full restore"),
    (("online",), "full restore of an online backup"),
)


def main() -> None:
    """Seed, measure turn by turn, print the medians."""
    parser = argparse.ArgumentParser(description="Compare two installed versions of the program.")
    parser.add_argument("older", type=Path)
    parser.add_argument("newer", type=Path)
    parser.add_argument("--megabytes", type=float, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ensure_images()
    programs = {"older": options.older.absolute(), "newer": options.newer.absolute()}
    place = Path(tempfile.mkdtemp(prefix="mailarchiver-backup-benchmark-"))
    stack = create_stack(place / "stack", megabytes=options.megabytes, health_interval="10s")
    try:
        seconds = _measure(stack, place, programs, options.rounds)
    finally:
        stack.destroy()
        shutil.rmtree(place, ignore_errors=True)
    _print(seconds)


def _measure(stack: Stack, place: Path, programs: dict[str, Path], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Give the seconds of each command, by version; who comes first changes from round to round."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(rounds):
        for version in sorted(programs, reverse=bool(number % 2)):
            state = {STATE_VARIABLE: str(place / f"state of {version}")}
            where = ["--directory", str(stack.directory), "--repository", str(place / version), "--json"]
            for backup, restore in TURNS:
                for name, words in (
                    (" ".join(backup), ["backup", *backup]),
                    (restore, ["restore", "latest", "--yes"]),
                    ("commit", ["commit", "--yes"]),
                ):
                    settle(stack)
                    command = [str(programs[version]), *words, *where]
                    measured = measure(
                        name, command, directory=place, url=stack.app_url, environment=state,
                        result=lambda: None,
                    )  # fmt: skip
                    found[name][version].append(measured.seconds)
    return found


def _print(found: dict[str, dict[str, list[float]]]) -> None:
    table = Table("command", "older s", "newer s", "ratio", title="Medians")
    for name, seconds in found.items():
        older, newer = (statistics.median(seconds[version]) for version in ("older", "newer"))
        table.add_row(name, f"{older:.1f}", f"{newer:.1f}", f"{newer / older:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
