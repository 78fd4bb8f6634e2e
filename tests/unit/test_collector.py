"""The garbage collector is kept from the program's own modules, and from nothing that the work leaves behind."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tasks.collector import IMPORTING, WORKING, collect_as_usual, collect_seldom


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the collector of the tests' process as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_what_was_imported_is_looked_at_no_more_once_the_work_begins() -> None:
    collect_seldom()
    assert gc.get_threshold() == IMPORTING

    frozen = gc.get_freeze_count()
    collect_as_usual()

    assert gc.get_threshold() == WORKING
    assert gc.get_freeze_count() > frozen


def test_a_second_piece_of_work_freezes_no_rubbish_of_the_first() -> None:
    collect_seldom()
    collect_as_usual()
    frozen = gc.get_freeze_count()
    rubbish: list[object] = []
    rubbish.append(rubbish)

    collect_as_usual()

    assert gc.get_freeze_count() <= frozen


BESIDE = """
import gc, threading
from tasks import collector
collector.YOUNG_SECONDS = 0.01
threads, ended = [], threading.Event()
class Circle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        threads.append(threading.current_thread().name)
        ended.set()
collector.collect_beside()
Circle()
kept = [[] for _ in range(10 * collector.WORKING[0])]  # enough for a collection here, were it not for that
assert ended.wait(10)
print(*threads)
"""


def test_beside_is_in_another_thread_and_in_no_other() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["collector"]
