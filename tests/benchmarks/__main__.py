"""Run the guide's commands and ours side by side on one seeded stack, and print how they compare.

    python -m tests.benchmarks --megabytes 1500 [--output FILE]
    python -m tests.benchmarks --megabytes 4000 --only-ours    # memory and disk at other sizes
    python -m tests.benchmarks --megabytes 1500 --encrypted    # what encryption costs, and a copy beside rclone alone

Its own command: the test suite does not run it. Needs root (the guide's `cp` of the data directory does) and an idle machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.adapters.archive.repository_marker import MARKER_NAME
from tasks.adapters.host.state import STATE_VARIABLE
from tests.benchmarks.measure import Measured, measure, settle
from tests.benchmarks.sealed import measure_sealed, print_sealed
from tests.cli import PROGRAM
from tests.end_to_end.test_guide_archives import DUMP_RESTORE, FULL_RESTORE, METHOD_1, METHOD_2
from tests.stack.images import ensure_images
from tests.stack.stack import Stack, create_stack

# What is compared with what: (ours, the guide's, figure, the most it may be of the guide's).
TARGETS = [
    ("hot, guide format", "Method 2", "seconds", 0.25),
    ("hot, fast format", "Method 2", "seconds", 0.15),
    ("restore from dump", "guide: restore from SQL dump", "seconds", 0.35),
    ("restore from dump", "guide: restore from SQL dump", "downtime_seconds", 0.15),
    ("complete", "Method 1", "downtime_seconds", 0.1),
    ("complete", "Method 1", "seconds", 0.3),
    ("online", "Method 1", "seconds", 0.12),
    ("full restore", "guide: full restore", "seconds", 0.3),
    ("full restore", "guide: full restore", "downtime_seconds", 0.2),
]
MEMORY_LIMIT_MB = 300
EXTRA_DISK_MB = 100


def main() -> None:
    """Seed, measure, print."""
    parser = argparse.ArgumentParser(description="Compare our flows with the guide's commands on one stack.")
    parser.add_argument("--megabytes", type=float, default=1500)
    parser.add_argument(
        "--only-ours", action="store_true", help="leave the guide's commands out: memory and extra disk alone"
    )
    parser.add_argument(
        "--encrypted",
        action="store_true",
        help="hot backups with and without encryption, and a copy to a local S3, alone",
    )
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    ensure_images()
    place = Path(tempfile.mkdtemp(prefix="mailarchiver-backup-benchmark-"))
    # What this machine remembers, of targets above all, is neither asked nor changed.
    os.environ[STATE_VARIABLE] = str(place / "state")
    stack = create_stack(place / "stack", megabytes=options.megabytes, health_interval="10s")
    try:
        if options.encrypted:
            (place / "sealing").mkdir()
            measured = measure_sealed(stack, place / "sealing")
        else:
            measured = _measure_ours(stack) if options.only_ours else _measure_all(stack)
        found = {each.name: each for each in measured}
    finally:
        stack.destroy()
        shutil.rmtree(place, ignore_errors=True)
    _print_figures(found)
    if options.encrypted:
        print_sealed(found)
    else:
        if not options.only_ours:
            _print_ratios(found)
        _print_limits(found)
    if options.output:
        options.output.write_text(json.dumps([asdict(each) for each in found.values()], indent=1))


def _empty(repository: Path) -> None:
    """Remove the archives and their records; the repository's marker stays, without which it would be another one."""
    for path in repository.iterdir():
        if path.name != MARKER_NAME:
            path.unlink()


def _run_ours(stack: Stack, name: str, *words: str) -> Measured:
    repository = stack.directory / "ours"
    command = [PROGRAM, *words, "--directory", str(stack.directory), "--repository", str(repository), "--json"]
    settle(stack)
    return measure(name, command, directory=stack.directory, url=stack.app_url, result=lambda: _newest(repository))


def _measure_ours(stack: Stack) -> list[Measured]:
    found = []
    for name, method, restore in (
        ("hot, guide format", ("hot", "--format", "guide"), "restore from dump"),
        ("hot, fast format", ("hot", "--format", "fast"), "restore from fast dump"),
        ("complete", ("complete",), "full restore"),
        ("online", ("online",), "full restore of an online backup"),
    ):
        found.append(_run_ours(stack, name, "backup", *method))
        found.append(_run_ours(stack, f"verification, {name}", "verify", "latest"))
        found.append(_run_ours(stack, restore, "restore", "latest", "--yes"))
        _run_ours(stack, "commit", "commit", "--yes")
        _empty(stack.directory / "ours")
    return found


def _measure_all(stack: Stack) -> list[Measured]:
    ours, theirs = stack.directory / "ours", stack.directory / "backups"
    run_ours = functools.partial(_run_ours, stack)

    def run_theirs(name: str, script: str, backup: Path | None = None) -> Measured:
        command = ["bash", "-e", "-c", script]
        settle(stack)
        return measure(
            name,
            command,
            directory=stack.directory,
            url=stack.app_url,
            environment={"BACKUP_FILE": str(backup or "")},
            result=lambda: _newest(theirs),
        )

    found = [run_theirs("Method 2", METHOD_2)]
    dump = _newest(theirs)
    found += [run_ours("hot, guide format", "backup", "hot", "--format", "guide")]
    found += [run_theirs("guide: restore from SQL dump", DUMP_RESTORE, dump)]
    found += [run_ours("restore from dump", "restore", "latest", "--yes")]
    run_ours("commit", "commit", "--yes")
    found += [run_ours("hot, fast format", "backup", "hot", "--format", "fast")]
    shutil.rmtree(theirs)
    _empty(ours)
    found += [run_theirs("Method 1", METHOD_1)]
    complete = _newest(theirs)
    found += [run_ours("complete", "backup", "complete"), run_ours("online", "backup", "online")]
    found += [run_theirs("guide: full restore", FULL_RESTORE, complete)]
    found += [run_ours("full restore", "restore", "latest", "--yes")]
    return found


def _newest(directory: Path) -> Path | None:
    archives = sorted(path for path in directory.glob("*.tar.*")) if directory.exists() else []
    return archives[-1] if archives else None


def _print_figures(found: dict[str, Measured]) -> None:
    table = Table("command", "wall s", "down s", "extra disk MB", "result MB", "memory MB", title="Figures")
    for each in found.values():
        table.add_row(
            each.name,
            f"{each.seconds:.1f}",
            f"{each.downtime_seconds:.2f}",
            f"{each.extra_disk_mb:.0f}",
            f"{each.result_mb:.0f}",
            f"{each.memory_mb:.0f}",
        )
    Console().print(table)


def _print_ratios(found: dict[str, Measured]) -> None:
    ratios = Table("ours", "the guide's", "figure", "ratio", "at most", "", title="Ratios")
    for ours, theirs, figure, most in TARGETS:
        base = getattr(found[theirs], figure)
        ratio = getattr(found[ours], figure) / base if base else float("inf")
        ratios.add_row(
            ours,
            theirs,
            figure.replace("_seconds", "").replace("seconds", "wall"),
            f"{ratio:.3f}",
            f"{most:g}",
            "met" if ratio <= most else "NOT MET",
        )
    Console().print(ratios)


def _print_limits(found: dict[str, Measured]) -> None:
    console = Console()
    for each in found.values():
        if each.name.startswith(("guide", "Method")):
            continue
        told = [f"memory {'met' if each.memory_mb < MEMORY_LIMIT_MB else 'NOT MET'}"]
        if each.name in ("hot, guide format", "hot, fast format", "complete", "online"):
            told.append(f"extra disk {'met' if each.extra_disk_mb <= each.result_mb + EXTRA_DISK_MB else 'NOT MET'}")
        console.print(f"{each.name}: {', '.join(told)}")


if __name__ == "__main__":
    main()
