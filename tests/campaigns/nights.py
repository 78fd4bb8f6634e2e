"""Thirty nights of a growing archive, incremental: what they cost in bytes and seconds, and that what they keep restores.

    python -m tests.campaigns.nights --nights 30 --megabytes 200 --growth 0.01

Each night some mail comes in, and the program takes an online backup as the settings have it (`kind: auto`). With `--freeze` the database is
once vacuumed with FREEZE, which writes the pages of all mail that has come since the stack was made. Every tenth night the newest link is restored and compared by content, and then taken back,
so that the chain goes on. Prints a table, and ends with 1 where all bytes together (records too) exceed one and a half times the
first full backup, anything was down, or a content differed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.adapters.host.state import STATE_VARIABLE
from tests.cli import PROGRAM, run_program
from tests.content import content
from tests.settings import write_settings
from tests.stack.images import ensure_images
from tests.stack.seed import seed_database
from tests.stack.stack import Stack, create_stack

ALLOWED = 1.5
RESTORED_EVERY = 10
COMMAND_SECONDS = 1800


@dataclass(frozen=True)
class Night:
    """What a night cost, and what was looked at."""

    number: int
    kind: str
    bytes: int
    seconds: float
    downtime_seconds: float
    note: str = ""


def command(place: Path, *words: str) -> Any:
    """Run the program with the campaign's settings; raise AssertionError where it fails."""
    settings = ("--settings", str(place / "settings.yaml"), "--json")
    code, stdout, stderr = run_program([PROGRAM, *words, *settings], timeout_seconds=COMMAND_SECONDS)
    assert code == 0, f"{words} ended with {code}: {stderr[-2000:]}"
    return json.loads(stdout)


def one_night(stack: Stack, place: Path, number: int, options: argparse.Namespace) -> Night:
    """Let mail come in, back up, and now and then restore what was backed up."""
    notes = []
    if number:
        seed_database(stack.dsn(), megabytes=options.megabytes * options.growth, number=1000 + number, extras=False)
    if options.freeze and number == options.nights // 2:
        stack.psql("VACUUM (FREEZE)")
        notes.append("after VACUUM FREEZE")
    is_restored = number == options.nights - 1 or (number and number % RESTORED_EVERY == 0)
    before = content(stack) if is_restored else {}
    begun = time.monotonic()
    made = command(place, "backup", "online")
    seconds = time.monotonic() - begun
    if is_restored:
        stack.psql("CREATE TABLE after_the_backup AS SELECT 1 AS one")
        command(place, "restore", made["name"], "--yes", "--no-quarantine")
        assert content(stack) == before, f"night {number}: the restored content differs"
        command(place, "rollback", "--yes")
        command(place, "commit", "--yes")
        stack.psql("DROP TABLE after_the_backup")
        notes.append("restored, equal")
    record = place / "backups" / f"{made['name']}.manifest.json"
    kind = "incremental" if made["parents"] else "full"
    told = "; ".join(each for each in (*notes, made["why_full"]) if each)
    return Night(number, kind, made["bytes"] + record.stat().st_size, seconds, made["downtime_seconds"], told)


def run(options: argparse.Namespace) -> list[Night]:
    """Make a stack, and let so many nights pass."""
    ensure_images()
    with tempfile.TemporaryDirectory(prefix="mailarchiver-backup-nights-", dir=options.directory) as directory:
        place = Path(directory)
        os.environ[STATE_VARIABLE] = str(place / "state")
        stack = create_stack(place / "stack", megabytes=options.megabytes)
        try:
            stack.psql("VACUUM (FREEZE)")  # as an archive of some age is
            about = {"directory": stack.directory, "repository": place / "backups", "incremental": {"kind": "auto"}}
            write_settings(place / "settings.yaml", {"main": about})
            return [one_night(stack, place, number, options) for number in range(options.nights)]
        finally:
            stack.destroy()


def main() -> int:
    """Run the nights and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--growth", type=float, default=0.01)
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--directory", type=Path, help="where stack and backups lie; a temporary directory by default")
    nights = run(parser.parse_args())

    table = Table("night", "kind", "bytes", "seconds", "note")
    for each in nights:
        table.add_row(str(each.number), each.kind, f"{each.bytes:,}", f"{each.seconds:.2f}", each.note)
    Console(width=140).print(table)
    full, together = nights[0].bytes, sum(each.bytes for each in nights)
    down = sum(each.downtime_seconds for each in nights)
    print(
        f"all {len(nights)} nights: {together:,} bytes, {together / full:.3f} of the first full backup ({full:,}); downtime {down:g} s"
    )
    return int(together > ALLOWED * full or down > 0)


if __name__ == "__main__":
    sys.exit(main())
