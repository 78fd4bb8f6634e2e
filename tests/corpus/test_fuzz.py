"""A short form of `python -m tests.campaigns.fuzz`, the same cases each time; the long form takes others."""

from __future__ import annotations

import json
import subprocess
import sys


def test_altered_bytes_give_answers_or_errors_of_ours() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.fuzz", "--seed", "1", "--cases", "1600", "--seconds", "60"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["cases"] > 160
    assert told["memory_held"]
