"""Starved, and broken in the middle: nothing incomplete under a final name, nothing left down, and the next run is green."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.campaigns.kills import final_names
from tests.cli import Operator
from tests.stack.stack import Stack, create_stack, wait_until
from tests.warm import Child

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


# How much of what a backup needs is free: `MAILARCHIVER_BACKUP_SHARES=8` tries eight.
STEPS = int(os.environ.get("MAILARCHIVER_BACKUP_SHARES", "2"))
SHARES = [step / STEPS for step in range(STEPS + 1)]


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("bad days") / "stack", megabytes=30)
    yield made
    made.destroy()


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Operator:
    return Operator(stack.directory, tmp_path / "backups")


def dumps_running(stack: Stack) -> str:
    """List the backends of our dumps, and pg_dump processes, that are still there."""
    backends = stack.psql(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mailarchiver-backup%%' AND state = 'active'"
    )[0][0]
    processes = subprocess.run(
        ["docker", "top", stack.container("postgres").id], capture_output=True, text=True, check=True
    ).stdout
    return f"{backends} backends" if backends else ("pg_dump" if "pg_dump" in processes else "")


def wait_until_begun(operator: Operator, backup: Child) -> None:
    """Wait until an archive is under construction, or its backup was quicker."""
    wait_until(
        lambda: list(operator.repository.glob("*.partial")) or backup.poll() is not None, 60, "no archive was begun"
    )


def wait_until_no_dump(stack: Stack) -> None:
    wait_until(lambda: not dumps_running(stack), 20, "a dump still runs")


def test_pg_dump_killed_and_postgres_stopped_midway(stack: Stack, operator: Operator) -> None:
    """P6: a dump that does not prove its success is none. A table's lock holds the dump still while it is broken."""
    kill_dump = "for p in /proc/[0-9]*; do grep -q pg_dump $p/comm 2>/dev/null && kill -9 ${p#/proc/}; done; true"
    container = stack.container("postgres").id
    for stopping in (["docker", "exec", container, "bash", "-c", kill_dump], ["docker", "kill", container]):
        with psycopg.connect(stack.dsn()) as holder:
            holder.execute('LOCK TABLE mail_archiver."Users" IN ACCESS EXCLUSIVE MODE')
            process = operator.start("backup", "hot")
            deadline = time.monotonic() + 30
            while (
                "pg_dump"
                not in subprocess.run(["docker", "top", container], capture_output=True, text=True, check=True).stdout
            ):
                assert time.monotonic() < deadline
            subprocess.run(stopping, check=True, capture_output=True)
            assert process.wait(120) == 1
            holder.close()
    stack.compose("start")
    stack.wait_app()

    assert final_names(operator.repository) == []
    operator.must("backup", "hot")
    wait_until_no_dump(stack)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts small file systems: needs root")
def test_a_full_disk_hurts_nobody(stack: Stack, tmp_path: Path) -> None:
    """P14: a repository without room is refused before anything starts; one that fills up midway leaves nothing behind."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(place)], check=True)
    try:
        operator = Operator(stack.directory, place / "backups")
        operator.must("backup", "hot")
        needed = sum(path.stat().st_size for path in operator.repository.iterdir())
        states = stack.states()
        for share in SHARES:
            ballast = place / "ballast"
            free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            # First as much as makes the estimate refuse; then behind its back, while the dump runs.
            ballast.write_bytes(bytes(max(0, free - int(needed * share))))
            answer = operator.run("backup", "hot")
            assert answer.code == 1
            assert "free" in answer.stderr
            ballast.unlink()
            process = operator.start("backup", "complete")
            wait_until_begun(operator, process)
            free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            with suppress(OSError):  # the backup was quicker: then the disk is full all the same
                ballast.write_bytes(bytes(max(0, free - int(needed * share) - 4096)))
            process.wait(60)
            ballast.unlink(missing_ok=True)
            stack.wait_app()
            for name in final_names(operator.repository):
                assert operator.run("check", str(operator.repository / name)).code == 0
            for path in operator.repository.glob("*"):
                if len(final_names(operator.repository)) > 1 and path.name.startswith(
                    final_names(operator.repository)[-1].split(".")[0]
                ):
                    path.unlink()
        assert {service: state for service, (_, state, _) in stack.states().items()} == {
            service: state for service, (_, state, _) in states.items()
        }
        operator.must("backup", "hot")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
