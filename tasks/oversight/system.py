"""How the backups of the whole system stand, as they were last seen at Proxmox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tasks.adapters.proxmox.guests_state import read_guest_proofs, read_guests_seen
from tasks.core.policy.copy_counts import GuestStatus, SystemPlace
from tasks.core.proxmox.judge_guests import guest_notes, guest_statuses, place_problems, system_places
from tasks.core.report.catalogue import CatalogueLine
from tasks.core.report.guests import guest_lines
from tasks.run.config import InstallationConfig


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """How the whole system's backups stand, as they were last seen; all is empty where the settings name no Proxmox."""

    guests: tuple[GuestStatus, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    places: tuple[SystemPlace, ...] = ()
    lines: tuple[CatalogueLine, ...] = ()


def system_status(config: InstallationConfig, now: datetime) -> SystemStatus:
    """Judge what was last seen; nothing is asked."""
    wanted = config.settings.proxmox
    if wanted is None:
        return SystemStatus()
    seen = read_guests_seen(config.id)
    proofs = read_guest_proofs(config.id)
    ours = config.settings.schedule.proxmox is not None
    guests = guest_statuses(wanted, seen, now, ours_by_schedule=ours, proofs=proofs)
    return SystemStatus(
        tuple(guests),
        (*(text for each in guests for text in each.problems), *place_problems(seen)),
        tuple(guest_notes(seen)),
        tuple(system_places(wanted, seen, now)),
        tuple(guest_lines(seen, wanted.guests, now=now, proofs=proofs)),
    )
