"""Measure what encryption costs a hot backup, and a copy to an S3 server on the loopback beside `rclone copy` alone."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pyrage
from rich.console import Console

from tasks.adapters.archive.archive_source import record_path_of
from tests.benchmarks.measure import Measured, measure, settle
from tests.cli import PROGRAM
from tests.settings import write_settings
from tests.stack.stack import Stack
from tests.targets import RCLONE, serving, write_config

ROUNDS = 3
PLAIN, SEALED, COPY, ALONE = "hot, plain", "hot, encrypted", "copy of an encrypted archive to S3", "rclone copy alone"
NOTHING = "copy with nothing to send"
# Of a plain backup's wall time; of the speed of `rclone copy`.
MOST_OF_PLAIN, LEAST_OF_ALONE, MEMORY_LIMIT_MB = 1.15, 0.8, 300


def measure_sealed(stack: Stack, place: Path) -> list[Measured]:
    """Back up plainly and encrypted by turns, then copy the last archive; give the median of each by its wall time."""
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    with serving(place, "s3") as server:
        config = write_config(place / "rclone.conf", {"away": server.section})
        ordinary = {"directory": stack.directory, "rclone_config": config}
        copies = [{"name": "away", "remote": "away:bucket/ours"}]
        wanted = {
            PLAIN: {**ordinary, "repository": place / "plain"},
            SEALED: {**ordinary, "repository": place / "sealed", "copies": copies, "encryption": {"recipients": [recipient]}},
        }  # fmt: skip
        found: dict[str, list[Measured]] = {PLAIN: [], SEALED: [], COPY: [], NOTHING: [], ALONE: []}
        for _ in range(ROUNDS):
            for name, main in wanted.items():
                settings = write_settings(place / f"{Path(str(main['repository'])).name}.yaml", {"main": main})
                for old in Path(str(main["repository"])).glob("mailarchiver-backup-*"):
                    old.unlink()
                settle(stack)
                found[name].append(_run(stack, name, [PROGRAM, "backup", "hot", "--settings", str(settings)], main))
            (archive,) = Path(str(wanted[SEALED]["repository"])).glob("*.age.tar")
            settle(stack)
            command = [PROGRAM, "copy", "--settings", str(place / "sealed.yaml")]
            found[COPY].append(_run(stack, COPY, command, wanted[SEALED]))
            found[NOTHING].append(_run(stack, NOTHING, command, wanted[SEALED]))
            settle(stack)
            alone = [RCLONE, "--config", str(config), "copy", str(archive), "away:bucket/alone"]
            found[ALONE].append(_run(stack, ALONE, alone, wanted[SEALED]))
            subprocess.run([RCLONE, "--config", str(config), "purge", "away:bucket/alone"], check=True)
            assert record_path_of(archive).exists()
    return [_median(each) for each in found.values()]


def print_sealed(found: dict[str, Measured]) -> None:
    """Say of each limit whether it is met. Of a copy the sending counts, without what the command needs where there is nothing to send."""
    console = Console()
    ratio = found[SEALED].seconds / found[PLAIN].seconds
    console.print(f"encrypted / plain: {ratio:.3f} of at most {MOST_OF_PLAIN:g}: {_met(ratio <= MOST_OF_PLAIN)}")
    memory = found[SEALED].memory_mb
    console.print(f"memory, encrypted: {memory:.0f} MB of at most {MEMORY_LIMIT_MB}: {_met(memory < MEMORY_LIMIT_MB)}")
    whole = found[ALONE].seconds / found[COPY].seconds
    speed = found[ALONE].seconds / max(0.001, found[COPY].seconds - found[NOTHING].seconds)
    console.print(
        f"copy to S3 / rclone alone: {speed:.2f} of at least {LEAST_OF_ALONE:g}: {_met(speed >= LEAST_OF_ALONE)}"
    )
    console.print(f"  (with the {found[NOTHING].seconds:.1f} s that the command takes for nothing: {whole:.2f})")


def _run(stack: Stack, name: str, command: list[str], main: dict[str, object]) -> Measured:
    repository = Path(str(main["repository"]))
    return measure(
        name, command, directory=stack.directory, url=stack.app_url, result=lambda: max(repository.glob("*.tar*"), default=None)
    )  # fmt: skip


def _median(runs: list[Measured]) -> Measured:
    middle = sorted(runs, key=lambda each: each.seconds)[len(runs) // 2]
    return replace(middle, memory_mb=max(each.memory_mb for each in runs))


def _met(is_met: bool) -> str:
    return "met" if is_met else "NOT MET"
