"""The state directory's memory of what was seen of guests' backups."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.core.errors import BackupError
from tasks.core.proxmox.seen import GuestsSeen

logger = logging.getLogger(__name__)


def read_guests_seen(installation: str) -> GuestsSeen:
    """Give what the last look saw; nothing where none was made, or where what it left cannot be understood (which is logged)."""
    try:
        found = read_json(state_subdirectory("guests") / f"{installation}.json")
        return GuestsSeen.model_validate(found) if found is not None else GuestsSeen()
    except (BackupError, ValidationError) as error:
        logger.warning("what was seen of guests' backups cannot be understood: %s", str(error).splitlines()[0])
        return GuestsSeen()


def write_guests_seen(installation: str, seen: GuestsSeen) -> None:
    """Write what is to be remembered."""
    write_json(state_subdirectory("guests") / f"{installation}.json", seen.model_dump(mode="json"))
