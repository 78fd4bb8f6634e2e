"""A signal ends what runs and leaves no lock behind, wherever it arrives."""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
import time

import pytest

from tasks.adapters.host.interruption import raising


class Stopped(BaseException):
    """What the handler raises."""


def use(pool: queue.LifoQueue[int], listens: threading.Event) -> None:
    """Take and put back until a signal comes."""
    listens.set()
    while True:
        pool.put(1)
        pool.get()


@pytest.mark.timeout(60)
def test_no_lock_stays_taken_by_who_was_interrupted() -> None:
    """A library's pool takes its connections from such a queue, and puts them back on the way out: a lock that stayed taken is waited for."""
    dice, sender_ends = random.Random(1), threading.Event()
    before = signal.signal(signal.SIGUSR1, raising(lambda _: Stopped()))
    listens = threading.Event()

    def send() -> None:
        while not sender_ends.wait(dice.uniform(0, 0.002)):
            if listens.is_set():  # one signal for each who listens: a second would meet the test itself
                listens.clear()
                os.kill(os.getpid(), signal.SIGUSR1)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(150):
            pool: queue.LifoQueue[int] = queue.LifoQueue(3)
            with pytest.raises(Stopped):
                use(pool, listens)
            assert not pool.mutex.locked()
    finally:
        sender_ends.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_who_waits_for_a_lock_is_interrupted_too() -> None:
    """The wait is not one step of the interpreter: after a second it is given up."""
    before = signal.signal(signal.SIGUSR1, raising(lambda _: Stopped()))
    taken = threading.Condition(threading.Lock())
    taken._lock.acquire()  # type: ignore[attr-defined]
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    begun = time.monotonic()
    try:
        with pytest.raises(Stopped), taken:
            pass
        assert time.monotonic() - begun < 10
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
