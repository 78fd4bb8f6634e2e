"""Python's garbage collector, kept from looking at what stays: the program's own modules.

Importing Prefect makes some 700,000 objects that live as long as the process. The collector went through them every few
thousand allocations, and once more at the end: a third of the time that a command, a run or a server took to start.
"""

from __future__ import annotations

import atexit
import gc

# Measured on the import of a flow: larger ones gain nothing more.
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
