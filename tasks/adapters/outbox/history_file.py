"""The file that holds an installation's history, in the state directory."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.adapters.host.files import write_atomically
from tasks.adapters.host.state import state_subdirectory
from tasks.core.errors import BackupError
from tasks.core.policy.history import KEPT_LINES, Entry, parse_history


def read_history(installation_id: str) -> list[Entry]:
    """Read an installation's history, oldest entry first; empty where there is none."""
    try:
        text = _place(installation_id).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BackupError(f"the history of {installation_id} cannot be read: {error.strerror}") from error
    return parse_history(text.splitlines())


def append_history(installation_id: str, entry: Entry) -> None:
    """Add an entry; the oldest go where there are many. Raise BackupError where the disk does not take it."""
    place = _place(installation_id)
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, entry.model_dump_json().encode() + b"\n")
        finally:
            os.close(descriptor)
        lines = place.read_bytes().splitlines(keepends=True)
        if len(lines) > 2 * KEPT_LINES:
            write_atomically(place, b"".join(lines[-KEPT_LINES:]))
    except OSError as error:
        raise BackupError(f"the history of {installation_id} cannot be written: {error.strerror}") from error


def _place(installation_id: str) -> Path:
    return state_subdirectory("history") / f"{installation_id}.jsonl"
