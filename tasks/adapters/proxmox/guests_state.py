"""The state directory's memory of what was seen of guests' backups, and of what restoring them has proven."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from tasks.adapters.host.files import one_at_a_time
from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.core.errors import BackupError
from tasks.core.proxmox.proofs import GuestProof, GuestProofs
from tasks.core.proxmox.seen import GuestsSeen

WAIT_SECONDS = 30.0

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


def read_guest_proofs(installation: str) -> GuestProofs:
    """Give what tests of guests' backups have shown; nothing where none was made, or what is there cannot be understood (which is logged)."""
    try:
        found = read_json(state_subdirectory("guests") / f"{installation}.proofs.json")
        return GuestProofs.model_validate(found) if found is not None else GuestProofs()
    except (BackupError, ValidationError) as error:
        logger.warning("what tests of guests' backups have shown cannot be understood: %s", str(error).splitlines()[0])
        return GuestProofs()


def add_guest_proof(installation: str, proof: GuestProof) -> None:
    """Remember how a test of a guest's backup ended."""
    place = state_subdirectory("guests") / f"{installation}.proofs.json"
    with one_at_a_time(place.with_suffix(".lock"), wait_seconds=WAIT_SECONDS):
        write_json(place, read_guest_proofs(installation).after(proof).model_dump(mode="json"))
