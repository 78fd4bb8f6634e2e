"""Raise from a signal's handler where that does no harm: never while Python code takes or gives back a lock.

A handler runs between any two steps of the interpreter. Raised in the middle of `Condition.__enter__`, which a library's queue or pool of
connections uses, an exception leaves the lock taken for ever, and the library's own clearing up then waits for it: such a process
never ends, and its watchdog waits with it. One in five signals that met such code did that (tests/unit/test_interruption.py).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], None]

_LOCKS = frozenset({threading.__file__, logging.__file__})
_TAKING_OR_GIVING = frozenset(
    {"__enter__", "__exit__", "acquire", "release", "_acquire_restore", "_release_save", "_acquireLock", "_releaseLock"}
)
_AGAIN_SECONDS = 0.001
# A lock that is not had after so many tries is waited for, and waiting may be interrupted.
_TRIES = 500


def raising(error: Callable[[int], BaseException]) -> Handler:
    """Give a handler that raises what `error` makes of the signal's number, a moment later where a lock is being taken or given back.

    To be called in the main thread, where Python's handlers run.
    """
    again, process = _echo(threading.get_ident()), os.getpid()
    tries = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal tries
        while frame is not None and frame.f_code is handle.__code__:  # a second signal met us at work
            frame = frame.f_back
        if _works_on_a_lock(frame) and tries < _TRIES and os.getpid() == process:
            tries += 1
            os.write(again, bytes([number]))
            return
        tries = 0
        raise error(number)

    return handle


def _works_on_a_lock(frame: FrameType | None) -> bool:
    code = frame.f_code if frame is not None else None
    return code is not None and code.co_name in _TAKING_OR_GIVING and code.co_filename in _LOCKS


_echoes: dict[int, int] = {}


def _echo(main: int) -> int:
    """Give a pipe of this process: a signal's number that is written to it is sent to the main thread again a moment later.

    A handler cannot do that itself: it would hear the signal before it has returned.
    """
    process = os.getpid()
    if process not in _echoes:
        heard, told = os.pipe2(os.O_CLOEXEC)

        def send_again() -> None:
            while number := os.read(heard, 1):
                time.sleep(_AGAIN_SECONDS)
                signal.pthread_kill(main, number[0])

        threading.Thread(target=send_again, name="signal-echo", daemon=True).start()
        _echoes[process] = told
    return _echoes[process]
