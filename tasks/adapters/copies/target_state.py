"""The state directory's memory of a target, and the lock by which an installation's backups are copied by one run at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from tasks.adapters.host.files import opened, try_lock
from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.core.copies.state import TargetState
from tasks.core.errors import BackupError, Busy

logger = logging.getLogger(__name__)


def read_target_state(installation: str, target: str) -> TargetState:
    """Read what is remembered of a target; nothing where there is no such file, or one that cannot be understood (which is logged).

    Then the next run finds out anew what the target holds.
    """
    place = _place(installation, target)
    try:
        found = read_json(place)
        return TargetState.model_validate(found) if found is not None else TargetState()
    except (BackupError, ValidationError) as error:
        logger.warning("%s cannot be understood, and is made anew: %s", place, str(error).splitlines()[0])
        return TargetState()


def write_target_state(installation: str, target: str, state: TargetState) -> None:
    """Write what is to be remembered of a target."""
    write_json(_place(installation, target), state.model_dump(mode="json"))


@contextmanager
def copying_lock(installation: str) -> Iterator[None]:
    """Hold an installation's copies for the block; raise Busy where another run copies them. A backup goes on beside it."""
    with opened(_directory(installation) / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC) as descriptor:
        if not try_lock(descriptor):
            raise Busy(
                f"another run is copying the backups of {installation}", hint="wait for its end, and run this again"
            )
        yield


def _directory(installation: str) -> Path:
    state_subdirectory("copies")
    return state_subdirectory(f"copies/{installation}")


def _place(installation: str, target: str) -> Path:
    return _directory(installation) / f"{target}.json"
