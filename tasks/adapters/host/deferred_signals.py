"""Let a short piece of work finish before a signal is heard."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_DEFERRED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Hear SIGTERM, SIGINT and SIGHUP only when the block has ended; keep it well under the 30 s after which Prefect kills.

    Handlers turn these into exceptions, and one that is raised in the middle of giving back would leave services down.
    Outside the main thread, where Python raises none, it does nothing. (Masking would not do: other threads take the signal.)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        heard.append(number)

    before = {}
    try:
        for number in _DEFERRED:
            handler = signal.getsignal(number)
            # One that C code installed cannot be put back; one that is ignored stays so.
            if handler is not None and handler != signal.SIG_IGN:
                before[number] = handler
                signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number_heard in dict.fromkeys(heard):
            os.kill(os.getpid(), number_heard)
