"""Python's garbage collector, kept from looking at what stays: the program's own modules.

Importing Prefect makes some 700,000 objects that live as long as the process. The collector went through them every few
thousand allocations, and once more at the end: a third of the time that a command, a run or a server took to start.
"""

from __future__ import annotations

import atexit
import gc
import threading
import time

# Measured on the import of a flow by the command line: with a tenth of it, it took 20 of 370 ms longer.
IMPORTING = (500_000, 20, 100)
WORKING = gc.get_threshold()


def collect_seldom() -> None:
    """Have the collector look seldom, for as long as the program is being imported, and not at all at the process's end."""
    gc.set_threshold(*IMPORTING)
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """Take what is there by now for something that stays, and look as often as usual at what comes: the work begins.

    Once: what a later piece of work in the same process finds may be rubbish of the one before.
    """
    if gc.get_threshold() == WORKING:
        return
    gc.freeze()
    gc.set_threshold(*WORKING)


# What one second of a busy server leaves behind is a few megabytes.
YOUNG_SECONDS, ALL_SECONDS = 1.0, 60.0


def collect_beside() -> None:
    """Collect in a thread of its own from now on, and in no other: what one that serves others may never do.

    A collection ends, with an object, what that object holds; a cursor of SQLite then waits for whatever its connection does. Where that is a
    statement which waits for a lock, in another thread, and the lock's owner waits for the event loop that is collecting, all stand still until
    the statement gives up, after sixty seconds. Prefect's server did that with a few requests at once (tests/integration/test_busy_server.py).
    """
    collect_as_usual()
    gc.disable()
    threading.Thread(target=_collect_for_ever, name="collector", daemon=True).start()


def _collect_for_ever() -> None:
    everything_at = time.monotonic() + ALL_SECONDS
    while True:
        time.sleep(YOUNG_SECONDS)
        if time.monotonic() < everything_at:
            gc.collect(1)
            continue
        gc.collect()
        everything_at = time.monotonic() + ALL_SECONDS
