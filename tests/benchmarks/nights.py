"""What a night costs: our incremental backups beside the tools that people use, on one growing stack.

    python -m tests.benchmarks.nights --megabytes 1500 --nights 5 [--output FILE]

Measured are the first backup, each next one after so much growth, and a restore, in seconds and bytes; before the last night the database is
vacuumed with FREEZE, which freezes what has come since the first. Thirty nights are projected: the first, and twenty-nine times the median of the others. borg and restic store what
`pg_dump` writes, uncompressed, as borgmatic and restic's users have it; pgBackRest runs beside the server, with two processes, zstd:1 and
block incremental. Of two that are whole services, the commands alone are run: Databasus' logical backup is `pg_dump` in the custom format
with zstd:5, docker-volume-backup (offen) stops the containers and packs the volume by a parallel gzip of level 5, which pigz is here.
A tool that is not installed is named and left out (`apt-get install borgbackup restic pigz`).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.adapters.host.state import STATE_VARIABLE
from tests.benchmarks.measure import settle
from tests.cli import PROGRAM
from tests.settings import write_settings
from tests.stack.images import ensure_images, ensure_pgbackrest_image
from tests.stack.seed import seed_database
from tests.stack.stack import Stack, create_stack

NIGHTS_PROJECTED = 30
SECRET = "a-password-of-the-benchmark"
# In the container's own layer, for its packages' directories belong to another user than the image's server.
PGBACKREST_REPOSITORY = "/var/tmp/pgbackrest"
PGBACKREST = f"pgbackrest --no-config --stanza=mail --repo1-path={PGBACKREST_REPOSITORY} --log-path=/tmp --lock-path=/tmp --log-level-console=warn"
PGBACKREST_SERVER = "--pg1-path=/var/lib/postgresql/data --pg1-user=mailuser --pg1-database=postgres"
PGBACKREST_BACKUP = "--no-archive-check --compress-type=zst --compress-level=1 --process-max=2 --start-fast --repo1-bundle --repo1-block"


@dataclass
class Figures:
    """What one way of backing up has cost, night by night."""

    name: str
    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    restore_seconds: float | None = None

    @property
    def next_seconds(self) -> float:
        return statistics.median(self.seconds[1:])

    @property
    def next_bytes(self) -> float:
        return statistics.median(self.bytes[1:])

    @property
    def projected(self) -> float:
        return self.bytes[0] + (NIGHTS_PROJECTED - 1) * self.next_bytes


@dataclass(frozen=True)
class Way:
    """A way of backing up: a command for a night, where its bytes are, and how it comes back (None: not measured here)."""

    name: str
    backup: str
    size: Callable[[], int]
    restore: str | None = None
    prepare: str = ""


def ways(stack: Stack, place: Path) -> list[Way]:
    """Describe ours and those of the tools that are installed; name those that are not."""
    container = str(stack.container("postgres").name)
    into = f"docker exec -i {container}"
    dump = f"{into} pg_dump --username=mailuser --format=custom --compress=0 {stack.database}"
    load = f"{into} psql -q -U mailuser -d postgres -c 'DROP DATABASE IF EXISTS again' -c 'CREATE DATABASE again';"
    settings = {
        name: write_settings(
            place / f"{name}.yaml",
            {"main": {"directory": stack.directory, "repository": place / name, "incremental": {"kind": kind}}},
        )
        for name, kind in (("incremental", "auto"), ("full", "full"))
    }

    def below(name: str) -> Callable[[], int]:
        return lambda: sum(each.stat().st_size for each in (place / name).rglob("*") if each.is_file())

    ours = f"{PROGRAM} backup online --json --settings"
    found = [
        Way(
            "ours, online incremental", f"{ours} {settings['incremental']}", below("incremental"),
            f"{PROGRAM} restore latest --yes --settings {settings['incremental']}",
        ),
        Way("ours, online full", f"{ours} {settings['full']} --full", below("full")),
    ]  # fmt: skip
    rest = f"--repo={place / 'restic'}"
    borg = f"{place / 'borg'}"
    peers = {
        "borg": Way(
            "borg, as borgmatic calls it", f"set -o pipefail; {dump} | borg create --compression lz4 {borg}::{{now:%s%f}} -",
            below("borg"), f"set -o pipefail; {load} borg extract --stdout {borg}::$(borg list --last 1 --short {borg}) | {into} pg_restore -U mailuser -d again",
            f"borg init --encryption=repokey-blake2 {borg}",
        ),
        "restic": Way(
            "restic", f"set -o pipefail; {dump} | restic {rest} --quiet backup --stdin --stdin-filename dump", below("restic"),
            f"set -o pipefail; {load} restic {rest} dump latest dump | {into} pg_restore -U mailuser -d again", f"restic {rest} --quiet init",
        ),
    }  # fmt: skip
    services = f"{container} {stack.container('mailarchive-app').name}"
    volume = f"--directory={stack.directory} postgres-data"
    of_volumes = f"{place / 'offen'}"
    of_dumps = f"{place / 'databasus'}"
    peers["pigz"] = Way(
        "docker-volume-backup's commands",
        f"set -o pipefail; docker stop {services}; tar --create {volume} | pigz -5 > {of_volumes}/$(date +%s%N).tar.gz; docker start {services}",
        below("offen"),
        f"set -o pipefail; docker stop {services}; rm -rf {stack.directory}/postgres-data;"
        f" pigz --decompress --stdout $(ls {of_volumes}/* | tail -1) | tar --extract {volume}; docker start {services}",
        f"mkdir {of_volumes}",
    )
    peers["docker"] = Way(
        "Databasus' commands (logical)",
        f"{into} pg_dump --username=mailuser --format=custom --compress=zstd:5 --verbose {stack.database} > {of_dumps}/$(date +%s%N)",
        below("databasus"), f"set -o pipefail; {load} {into} pg_restore -U mailuser -d again < $(ls {of_dumps}/* | tail -1)",
        f"mkdir {of_dumps}",
    )  # fmt: skip
    for program, way in peers.items():
        if shutil.which(program):
            found.append(way)
        else:
            print(f"{program} is not installed, and is left out")
    inside = f"docker exec -u postgres {container}"

    def stored() -> int:
        said = subprocess.run(
            [*shlex.split(inside), "du", "-sb", PGBACKREST_REPOSITORY], capture_output=True, check=True
        )
        return int(said.stdout.split()[0])

    again = "rm -rf /tmp/again; mkdir -m 700 /tmp/again"
    found.append(
        Way(
            "pgBackRest, block incremental", f"{inside} {PGBACKREST} {PGBACKREST_SERVER} {PGBACKREST_BACKUP} --type=incr backup", stored,
            f"{inside} sh -c '{again}'; {inside} {PGBACKREST} --pg1-path=/tmp/again --process-max=2 --spool-path=/tmp restore",
            f"{inside} mkdir -p {PGBACKREST_REPOSITORY}; {inside} {PGBACKREST} {PGBACKREST_SERVER} stanza-create",
        )
    )  # fmt: skip
    return found


def timed(command: str) -> float:
    """Run a command to its end; raise AssertionError where it fails."""
    begun = time.monotonic()
    environment = {**os.environ, "BORG_PASSPHRASE": SECRET, "RESTIC_PASSWORD": SECRET}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-1500:]} {done.stderr[-1500:]}"
    return time.monotonic() - begun


def measure_nights(stack: Stack, place: Path, options: argparse.Namespace) -> list[Figures]:
    """Let the nights pass; each way backs each of them up."""
    # As an archive of some age is: else the first vacuum of what was just loaded writes all of it once more, in whichever night that falls.
    stack.psql("VACUUM (FREEZE)")
    chosen = ways(stack, place)
    figures = [Figures(each.name) for each in chosen]
    for way in chosen:
        if way.prepare:
            timed(way.prepare)
    for night in range(options.nights):
        if night:
            seed_database(stack.dsn(), megabytes=options.megabytes * options.growth, number=1000 + night, extras=False)
        if night == options.nights - 1:
            stack.psql("VACUUM (FREEZE)")
        for way, found in zip(chosen, figures, strict=True):
            settle(stack)
            before = way.size()
            found.seconds.append(timed(way.backup))
            found.bytes.append(way.size() - before)
        print(
            f"night {night}: "
            + ", ".join(f"{each.name} {each.seconds[-1]:.1f} s {each.bytes[-1] / 1e6:.1f} MB" for each in figures),
            flush=True,
        )
    for way, found in sorted(zip(chosen, figures, strict=True), key=lambda each: each[0].name.startswith("ours")):
        if way.restore and options.restore:
            settle(stack)
            found.restore_seconds = timed(way.restore)
    return figures


def show(figures: list[Figures]) -> None:
    """Print the table."""
    table = Table(
        "way", "first, s", "MB", "next night, s", "MB", "after VACUUM FREEZE, s", "MB", "30 nights, MB", "restore, s"
    )
    for each in figures:
        restore = f"{each.restore_seconds:.1f}" if each.restore_seconds is not None else ""
        table.add_row(
            each.name, f"{each.seconds[0]:.1f}", f"{each.bytes[0] / 1e6:,.0f}", f"{each.next_seconds:.1f}", f"{each.next_bytes / 1e6:,.1f}",
            f"{each.seconds[-1]:.1f}", f"{each.bytes[-1] / 1e6:,.1f}", f"{each.projected / 1e6:,.0f}", restore,
        )  # fmt: skip
    Console(width=170).print(table)


def main() -> None:
    """Seed, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=1500)
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--growth", type=float, default=0.01)
    parser.add_argument("--no-restore", dest="restore", action="store_false")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    ensure_images()
    image = ensure_pgbackrest_image()
    place = Path(tempfile.mkdtemp(prefix="mailarchiver-backup-nights-"))
    os.environ[STATE_VARIABLE] = str(place / "state")
    stack = create_stack(place / "stack", megabytes=options.megabytes, health_interval="10s", postgres_image=image)
    try:
        figures = measure_nights(stack, place, options)
    finally:
        stack.destroy()
        shutil.rmtree(place, ignore_errors=True)
    show(figures)
    if options.output:
        options.output.write_text(json.dumps([asdict(each) for each in figures], indent=1))


if __name__ == "__main__":
    main()
