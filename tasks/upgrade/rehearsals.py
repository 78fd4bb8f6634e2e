"""What rehearsals showed, kept for as long as it holds: one file in the state directory for each installation and kind."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from tasks.adapters.host import state
from tasks.core.errors import BackupError

logger = logging.getLogger(__name__)

Kind = Literal["postgres", "application"]


def keep_rehearsal(directory: Path, kind: Kind, fields: Mapping[str, Any]) -> None:
    """Keep what a rehearsal showed; `at` is when."""
    state.write_json(_place(directory, kind), {**fields, "at": fields["at"].isoformat()})


def kept_rehearsal(
    directory: Path, kind: Kind, *, image_id: str, old_image_id: str, holds_for: timedelta
) -> dict[str, Any] | None:
    """Give what the last rehearsal of this very change of images showed, unless it is older than it holds."""
    try:
        said = state.read_json(_place(directory, kind))
        if said is None:
            return None
        found: dict[str, Any] = {**said, "at": datetime.fromisoformat(said["at"])}
        same = (found["image_id"], found["old_image_id"]) == (image_id, old_image_id)
        return found if same and timedelta(0) <= datetime.now(UTC) - found["at"] <= holds_for else None
    except (BackupError, KeyError, TypeError, ValueError) as error:
        logger.info("the last rehearsal cannot be read: %s", error)
        return None


def _place(directory: Path, kind: Kind) -> Path:
    word = "" if kind == "postgres" else f"-{kind}"
    digest = hashlib.sha256(bytes(directory.resolve())).hexdigest()[:32]
    return state.state_subdirectory("rehearsals") / f"{digest}{word}.json"
