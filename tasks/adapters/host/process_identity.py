"""Who a process is, as far as `/proc` tells: its start time sets it apart from a later one with the same number."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

COMMAND_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, told apart from every other of this boot. `started_ticks` is 0 where there is no `/proc`."""

    pid: int
    started_ticks: int


def this_process() -> ProcessIdentity:
    """Identify the process we are."""
    return ProcessIdentity(os.getpid(), started_ticks(os.getpid()) or 0)


def started_ticks(pid: int) -> int | None:
    """Read when a process began, in clock ticks since boot; None where it is dead, a zombie, or cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name stands in parentheses and may hold anything, parentheses too: count the fields after the last one.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in {"Z", "X"}:
        return None
    return int(fields[19])


def is_alive(process: ProcessIdentity) -> bool:
    """Tell whether this very process still runs (a stopped one does; a zombie, or another with its number, does not)."""
    return started_ticks(process.pid) == process.started_ticks


def command_of(pid: int) -> str:
    """Give a process's command line, shortened; empty where it cannot be seen."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    line = " ".join(word.decode(errors="replace") for word in words if word)
    return line if len(line) <= COMMAND_SHOWN_CHARACTERS else line[:COMMAND_SHOWN_CHARACTERS] + "..."
