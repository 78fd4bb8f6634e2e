"""The private keys (age identities) that may open encrypted archives within a run: an operator's file, and keys for one verification."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from tasks.adapters.archive.identity_file import read_identities

IDENTITY_VARIABLE = "MAILARCHIVER_BACKUP_IDENTITY"

_given: ContextVar[tuple[str, ...] | None] = ContextVar("identities", default=None)


@contextmanager
def opening_with(identities: tuple[str, ...] | None) -> Iterator[None]:
    """Open encrypted archives with these keys within the block; None leaves it as it was."""
    token = _given.set(identities if identities is not None else _given.get())
    try:
        yield
    finally:
        _given.reset(token)


def keys_for(path: Path) -> tuple[str, ...]:
    """Give the keys that may open an archive: those given for this run, else those of the file that the environment names."""
    given = _given.get()
    if given is not None:
        return given
    named = os.environ.get(IDENTITY_VARIABLE)
    return read_identities(Path(named)) if named else ()
