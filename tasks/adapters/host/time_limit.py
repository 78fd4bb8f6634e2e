"""Bound how long a block may take, whatever it waits for: the kernel's timer interrupts it in Python, so that every `finally` runs."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.adapters.host.interruption import raising
from tasks.core.errors import BackupError

logger = logging.getLogger(__name__)


class _Expired(BaseException):
    """Time is up. No `except` inside the block may take it for an error of its own and go on: only the limit itself catches it."""


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Raise BackupError inside the block once it has taken so long.

    Signals reach the main thread alone: elsewhere there is no limit, which is logged.
    """
    if threading.current_thread() is not threading.main_thread():
        logger.warning("%s runs in a thread of its own and has no time limit", what)
        yield
        return

    before = signal.signal(signal.SIGALRM, raising(lambda _: _Expired()))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Expired as expired:
        raise BackupError(
            f"{what} did not end within its limit of {seconds:g} s and was broken off",
            hint="the log says what it waited for; the limits are in the settings, under `timeouts`",
        ) from expired
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
