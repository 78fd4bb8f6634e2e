"""What scheduled operation costs: memory of an idle server and worker, and a whole night in Prefect against its bare work.

    python -m tests.benchmarks.operation [--megabytes 5] [--nights 3]

A night is what `serve` makes of the nightly schedule: the automated backup from the request for it to its end, and the
verification that follows by event. The work itself is the same from the command line, which backs up, verifies, prunes
and reports in one process and needs no server. Memory is PSS (each shared page counted once among those who share it)
of everything that `serve` started, once it has settled; RSS is given beside it. Needs root and an idle machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from deployments.password import AUTH_VARIABLE, CLIENT_VARIABLE
from tests.cli import PROGRAM
from tests.prefect_server import PrefectServer, ask, free_port, start_run
from tests.settings import write_settings
from tests.stack.images import ensure_images
from tests.stack.stack import Stack, create_stack

MEMORY_LIMIT_MB = 450
OVERHEAD_LIMIT_SECONDS = 15
SETTLE_SECONDS = 60
READY_SECONDS = 180
NIGHT_SECONDS = 300


def main() -> None:
    """Serve a small stack, measure, print."""
    parser = argparse.ArgumentParser(description="Measure what scheduled operation costs.")
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument("--nights", type=int, default=3)
    options = parser.parse_args()
    ensure_images()
    place = Path(tempfile.mkdtemp(prefix="mailarchiver-backup-operation-"))
    stack = create_stack(place / "stack", megabytes=options.megabytes)
    try:
        _measure(stack, place, options.nights)
    finally:
        stack.destroy()
        shutil.rmtree(place, ignore_errors=True)


def _measure(stack: Stack, place: Path, nights: int) -> None:
    settings = write_settings(
        place / "settings.yaml", {"main": {"directory": stack.directory, "repository": place / "backups"}}
    )
    environment = {
        **os.environ, "MAILARCHIVER_BACKUP_STATE": str(place / "state"), AUTH_VARIABLE: "operator:of the test", CLIENT_VARIABLE: "operator:of the test"
    }  # fmt: skip
    work = [_seconds([PROGRAM, "backup", "auto", "--settings", str(settings)], environment) for _ in range(nights)]
    print(f"the work itself (command line): {_told(work)}")

    port = free_port()
    log = place / "serve.log"
    begun = time.monotonic()
    with log.open("wb") as output:
        serving = subprocess.Popen(
            [PROGRAM, "serve", "--settings", str(settings), "--port", str(port)], env=environment, stdout=output,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        while b"ready: " not in log.read_bytes():
            assert serving.poll() is None, log.read_text()
            assert time.monotonic() - begun < READY_SECONDS, log.read_text()
            time.sleep(0.1)
        print(f"serve is ready after {time.monotonic() - begun:.1f} s")
        server = PrefectServer(f"http://127.0.0.1:{port}", environment, place, place)
        idle = _settled(serving.pid)
        found = [_night(server, known) for known in range(nights)]
        busy = _settled(serving.pid)
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(60)

    for name, memory in (("idle, after the start", idle), ("idle, after the nights", busy)):
        total = sum(pss for pss, _ in memory.values())
        parts = ", ".join(f"{program} {pss:.0f} (RSS {rss:.0f})" for program, (pss, rss) in memory.items())
        print(f"{name}: {total:.0f} MB PSS, at most {MEMORY_LIMIT_MB}: {_met(total <= MEMORY_LIMIT_MB)}; {parts}")
    whole = [each["whole"] for each in found]
    print(f"a night in Prefect: {_told(whole)}")
    for part in ("until the backup begins", "backup", "until the verification begins", "verification"):
        print(f"  {part}: {_told([each[part] for each in found])}")
    overhead = statistics.median(whole) - statistics.median(work)
    print(f"overhead: {overhead:.1f} s, at most {OVERHEAD_LIMIT_SECONDS}: {_met(overhead <= OVERHEAD_LIMIT_SECONDS)}")


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return time.monotonic() - begun


def _night(server: PrefectServer, known: int) -> dict[str, float]:
    """Ask for an automated backup and wait until its verification has ended; return what took how long, by Prefect's own times."""
    asked = time.time()
    backup = _ended(server, start_run(server, "automated-backup/automated-backup", {"installation": "main"}), known)
    verification = _ended(server, None, known)
    begin, end = _moment(backup["start_time"]), _moment(backup["end_time"])
    then, last = _moment(verification["start_time"]), _moment(verification["end_time"])
    return {
        "until the backup begins": begin - asked, "backup": end - begin, "until the verification begins": then - end,
        "verification": last - then, "whole": last - asked,
    }  # fmt: skip


def _ended(server: PrefectServer, run: str | None, known: int) -> dict[str, Any]:
    """Wait for a run by its id, or for one more verification than were known."""
    deadline = time.monotonic() + NIGHT_SECONDS
    while time.monotonic() < deadline:
        states = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}
        found = ask(server, "flow_runs/filter", {"flow_runs": states})
        verifications = sorted(
            (each for each in found if each["name"].startswith("verification of ")), key=lambda each: each["start_time"]
        )
        matching = [each for each in found if each["id"] == run] if run else verifications[known:]
        if matching:
            ended: dict[str, Any] = matching[0]
            assert ended["state_type"] == "COMPLETED", ended["state"]
            return ended
        time.sleep(0.5)
    raise AssertionError("the run did not end")


def _settled(root: int) -> dict[str, tuple[float, float]]:
    """Wait a minute, then look for ten seconds; return the most that each program of the tree took, as PSS and RSS in MB."""
    time.sleep(SETTLE_SECONDS)
    most: dict[str, tuple[float, float]] = {}
    for _ in range(10):
        now: dict[str, tuple[float, float]] = {}
        for process in _tree(root):
            with suppress(OSError):
                name = _name(process)
                pss, rss = now.get(name, (0.0, 0.0))
                more_pss, more_rss = _memory(process)
                now[name] = (pss + more_pss, rss + more_rss)
        if sum(pss for pss, _ in now.values()) > sum(pss for pss, _ in most.values()):
            most = now
        time.sleep(1)
    return most


def _tree(root: int) -> list[int]:
    """List a process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found, more = [root], True
    while more:
        new = [process for process, parent in parents.items() if parent in found and process not in found]
        found, more = found + new, bool(new)
    return found


def _name(process: int) -> str:
    words = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    return next((name for name in ("worker", "serve") if name in words), "server")


def _memory(process: int) -> tuple[float, float]:
    """Give a process's PSS and RSS in MB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    return tuple(int(lines[key].split()[0]) * 1024 / 1e6 for key in ("Pss", "Rss"))  # type: ignore[return-value]


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _told(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s (of {', '.join(f'{each:.1f}' for each in seconds)})"


def _met(met: bool) -> str:
    return "met" if met else "NOT MET"


if __name__ == "__main__":
    main()
