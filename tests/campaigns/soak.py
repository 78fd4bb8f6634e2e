"""Back up many times in one process, with threads delayed at random, and see that no backup fails and no descriptor is left open.

    python -m tests.campaigns.soak --count 500 [--method hot --method complete --method online] [--megabytes 5 --megabytes 60]

A descriptor that is closed twice, or under a thread that uses it, shows only in a rare order of events: so threads take
turns far more often than usual, each pauses at random where pieces are handed from one to another, and garbage is
collected at random moments.
"""

from __future__ import annotations

import argparse
import gc
import os
import queue
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.stack.images import ensure_images
from tests.stack.stack import Stack, create_stack

METHODS = ("hot", "complete", "online")
PAUSE_SECONDS = 0.003
SWITCH_SECONDS = 1e-5
# Docker's library keeps a connection for each of as many addresses that it asked last (docker.constants.DEFAULT_NUM_POOLS).
SDK_CONNECTIONS_KEPT = 25


@contextmanager
def unruly_threads(seed: int) -> Iterator[None]:
    """Let every hand-over through a queue pause at random now and then, switch threads often, and collect garbage at random."""
    dice = random.Random(seed)
    put, get, interval = queue.Queue.put, queue.Queue.get, sys.getswitchinterval()

    def disturbed() -> None:
        if dice.random() < 0.05:
            time.sleep(dice.uniform(0, PAUSE_SECONDS))

    def slow_put(self: Any, *arguments: Any, **named: Any) -> None:
        disturbed()
        put(self, *arguments, **named)

    def slow_get(self: Any, *arguments: Any, **named: Any) -> Any:
        disturbed()
        return get(self, *arguments, **named)

    ended = threading.Event()

    def collect() -> None:
        while not ended.wait(dice.uniform(0.01, 0.2)):
            gc.collect(dice.randrange(3))

    queue.Queue.put, queue.Queue.get = slow_put, slow_get  # type: ignore[method-assign]
    sys.setswitchinterval(SWITCH_SECONDS)
    collector = threading.Thread(target=collect, daemon=True)
    collector.start()
    try:
        yield
    finally:
        ended.set()
        collector.join()
        sys.setswitchinterval(interval)
        queue.Queue.put, queue.Queue.get = put, get  # type: ignore[method-assign]


def open_descriptors() -> Counter[str]:
    """Count what is open in this process by kind: files by their names, sockets and pipes together."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{name}").split(":")[0]] += 1
        except FileNotFoundError:
            continue
    return found


def back_up(method: str, installation: str) -> None:
    """Take one backup in this process, as the command line does."""
    from flows.complete_backup import complete_backup
    from flows.hot_backup import hot_backup
    from flows.online_backup import online_backup

    flows: dict[str, Any] = {"hot": hot_backup, "complete": complete_backup, "online": online_backup}
    flows[method].fn(installation)


def soak(stacks: list[Stack], place: Path, methods: list[str], count: int) -> list[str]:
    """Back the stacks up in turn, so often by each method; return in words what went wrong."""
    from tests.settings import write_settings

    repositories = [place / f"backups{number}" for number in range(len(stacks))]
    os.environ["MAILARCHIVER_BACKUP_SETTINGS"] = str(
        write_settings(
            place / "settings.yaml",
            {
                f"stack{number}": {"directory": stack.directory, "repository": repository}
                for number, (stack, repository) in enumerate(zip(stacks, repositories, strict=True))
            },
        )
    )
    wrong: list[str] = []
    before: Counter[str] = Counter()
    begun = time.monotonic()
    for turn in range(count):
        for method in methods:
            number = turn % len(stacks)
            try:
                back_up(method, f"stack{number}")
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                wrong.append(f"{turn + 1} {method}: {type(error).__name__}: {error}")
                print(wrong[-1], flush=True)
            for path in repositories[number].glob("mailarchiver-backup-*"):
                path.unlink()
        now = open_descriptors()
        if turn == len(stacks) * 2:
            before = now  # by then what is kept for good is open
        allowed = before + Counter({"socket": SDK_CONNECTIONS_KEPT})
        if before and (more := now - allowed):
            wrong.append(f"{turn + 1}: left open: {dict(more)}")
            print(wrong[-1], flush=True)
            before = now
        if (turn + 1) % 10 == 0:
            print(f"{turn + 1}/{count} of each, {time.monotonic() - begun:.0f} s, {len(wrong)} wrong", flush=True)
    return wrong


def main() -> int:
    """Run the soak and print what was seen."""
    parser = argparse.ArgumentParser(description="Back up many times with unruly threads.")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--megabytes", action="append", type=float, help="one for each stack; default: 5 and 60")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10**9)
    methods, sizes = options.method or list(METHODS), options.megabytes or [5, 60]
    ensure_images()
    with tempfile.TemporaryDirectory(prefix="mailarchiver-backup-soak-") as name, ExitStack() as lent:
        place = Path(name)
        (place / "state").mkdir(mode=0o700)
        os.environ["MAILARCHIVER_BACKUP_STATE"] = str(place / "state")
        stacks = []
        for number, megabytes in enumerate(sizes):
            stacks.append(create_stack(place / f"stack{number}", megabytes=megabytes))
            lent.callback(stacks[-1].destroy)
        print(f"seed {seed}", flush=True)
        with unruly_threads(seed):
            wrong = soak(stacks, place, methods, options.count)
    print(f"{options.count} backups by each of {', '.join(methods)}: {len(wrong)} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
