"""The file that holds an installation's history, in the state directory."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.adapters.host.files import opened, write_atomically
from tasks.adapters.host.outside_files import HISTORY, read_outside
from tasks.adapters.host.state import state_subdirectory
from tasks.core.errors import BackupError
from tasks.core.policy.history import KEPT_LINES, Entry, parse_history

MESSAGE_LIMIT = 4000


def read_history(installation_id: str) -> list[Entry]:
    """Read an installation's history, oldest entry first; empty where there is none."""
    try:
        content, _ = read_outside(_place(installation_id), HISTORY)
    except FileNotFoundError:
        return []
    return parse_history(content.decode("utf-8", errors="replace").splitlines())


def append_history(installation_id: str, entry: Entry) -> None:
    """Add an entry; the oldest go where there are many. Raise BackupError where the disk does not take it."""
    place = _place(installation_id)
    short = entry.model_copy(update={"message": entry.message[:MESSAGE_LIMIT]})
    try:
        with opened(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK) as descriptor:
            os.write(descriptor, short.model_dump_json().encode() + b"\n")
        content, _ = read_outside(place, HISTORY)
        lines = content.splitlines(keepends=True)
        if len(lines) > 2 * KEPT_LINES:
            write_atomically(place, b"".join(lines[-KEPT_LINES:]))
    except OSError as error:
        raise BackupError(f"the history of {installation_id} cannot be written: {error.strerror}") from error


def _place(installation_id: str) -> Path:
    return state_subdirectory("history") / f"{installation_id}.jsonl"
