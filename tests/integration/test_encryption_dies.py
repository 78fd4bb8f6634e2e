"""A writer that is killed takes the process that encrypts for it along, and leaves nothing but what the next run takes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest

from tasks.adapters.archive.writer import reclaim_partials
from tests.integration.archives import NAME
from tests.stack.stack import wait_until

WRITER = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from tasks.adapters.archive import age
from tasks.adapters.archive.writer import begin_archive, segment
place, recipient, name, age.PROGRAM = sys.argv[1:]
def endless():
    while True:
        yield os.urandom(1 << 20)
with segment(begin_archive(Path(place), name, "fast", (recipient,)), "dump") as part:
    part.add_stream("database.sql", endless(), mtime=datetime.now(UTC))
"""


def children_of(pid: int) -> list[int]:
    """Name the processes that a process has started."""
    return [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


@pytest.mark.parametrize("program", ["age", "no-such-program"], ids=["age", "our own"])
def test_a_killed_writer(tmp_path: Path, program: str) -> None:
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    words = [sys.executable, "-c", WRITER, str(tmp_path), recipient, NAME, program]
    writer = subprocess.Popen(words, cwd=Path(__file__).parents[2])
    try:
        wait_until(lambda: sum(each.stat().st_size for each in tmp_path.glob("*.partial")) > 8 << 20, 30, "no part")
        encrypting = children_of(writer.pid)
        assert len(encrypting) == 1
    finally:
        writer.kill()
        writer.wait(10)
    wait_until(lambda: not Path(f"/proc/{encrypting[0]}/fd/0").exists(), 20, "the process that encrypts lives on")
    assert reclaim_partials(tmp_path) != []
    assert os.listdir(tmp_path) == []
