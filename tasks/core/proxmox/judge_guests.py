"""How guests' backups stand: too old, failed, refuted, or not there at all; and how they count by the 3-2-1-1-0 rule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks.core.policy.clocks import is_ahead
from tasks.core.policy.copy_counts import GuestStatus, SystemPlace
from tasks.core.policy.proxmox_settings import Proxmox
from tasks.core.proxmox.proofs import GuestProofs, proof_problems
from tasks.core.proxmox.seen import GuestsSeen, SeenCopy, SeenTask
from tasks.core.units import duration_text

NAMED = 3
NOTHING_PROVEN = GuestProofs()


def guest_statuses(
    wanted: Proxmox, seen: GuestsSeen, now: datetime, *, ours_by_schedule: bool, proofs: GuestProofs = NOTHING_PROVEN
) -> list[GuestStatus]:
    """Judge each guest of the settings; nothing is judged that was never looked at."""
    if seen.looked_at is None:
        return []
    return [_guest_status(each, wanted, seen, now, ours_by_schedule, proofs) for each in wanted.guests]


def place_problems(seen: GuestsSeen) -> list[str]:
    """Tell which places could not be looked at."""
    return [f"{place}: {why}" for place, why in sorted(seen.errors.items())]


def guest_notes(seen: GuestsSeen) -> list[str]:
    """Tell what is to be known and is no alarm."""
    if seen.looked_at is None:
        return ["guests' backups at Proxmox were not looked at yet: `watch` does"]
    notes = [
        f"the last verification at {each.place} failed ({each.at:%Y-%m-%d %H:%M} UTC): {each.status}"
        for each in seen.tasks
        if each.is_verification and each.failed
    ]
    notes += [
        f"Proxmox's job {each.id} backs up {', '.join(map(str, each.guests))} in mode {each.mode}; the guide asks for stop"
        for each in seen.jobs
        if each.enabled and each.mode != "stop"
    ]
    if seen.uncovered is None:
        notes += ["the token may not see Proxmox's backup jobs (Sys.Audit on /): guests that no job names are not told"]
    return notes


def system_places(wanted: Proxmox, seen: GuestsSeen, now: datetime) -> list[SystemPlace]:
    """Give the places where guests' backups are, as they count for a backup of the application."""
    servers = {each.place: each for each in wanted.backup_servers}
    found = []
    for place in sorted({each.place for each in seen.copies}):
        # At each place the whole system is there when all of its guests are.
        moments = tuple(
            tuple(
                each.at for each in seen.of(guest) if each.place == place and each.counts and not is_ahead(each.at, now)
            )
            for guest in wanted.guests
        )
        at = servers.get(place, wanted)
        found.append(SystemPlace(place, at.medium, at.off_site, moments, timedelta(hours=wanted.within_hours)))
    return found


def _guest_status(
    guest: int, wanted: Proxmox, seen: GuestsSeen, now: datetime, ours: bool, proofs: GuestProofs
) -> GuestStatus:
    name = seen.name_of(guest)
    copies = [each for each in seen.of(guest) if not is_ahead(each.at, now)]
    counting = [each for each in copies if each.counts]
    newest = counting[0] if counting else None
    problems = []
    if newest is None:
        uncovered = seen.uncovered is not None and guest in seen.uncovered and not ours
        why = "; no backup job of Proxmox names it, and `schedule.proxmox` is not set" if uncovered else ""
        problems.append(f"{name} is not backed up at all, at any place that was looked at{why}")
    elif now - newest.at > timedelta(hours=wanted.within_hours):
        age = duration_text((now - newest.at).total_seconds())
        problems.append(
            f"the newest backup of {name} is {age} old, at {newest.place}; at most {wanted.within_hours:g} hours were asked for"
        )
    if refuted := [each for each in copies if each.verification == "failed"]:
        more = f" and {len(refuted) - NAMED} more" if len(refuted) > NAMED else ""
        named = ", ".join(f"{each.name} at {each.place}" for each in refuted[:NAMED])
        problems.append(f"backups of {name} failed their verification: {named}{more}")
    problems += _failed_task(guest, name, seen.tasks, copies)
    proven = proofs.proven.get(str(guest))
    if wanted.verification is not None:
        last, hours = proofs.last.get(str(guest)), wanted.verification.within_hours
        problems += proof_problems(name, last, proven, counting, hours, now)
    return GuestStatus(
        guest, name, len(counting), newest.at if newest else None, newest.place if newest else "",
        newest.verification if newest else "", tuple(problems), proven.at if proven else None,
    )  # fmt: skip


def _failed_task(guest: int, name: str, tasks: Sequence[SeenTask], copies: Sequence[SeenCopy]) -> list[str]:
    """Tell of the last backup task at each place that failed, unless a backup of the guest is newer: then it was another's, or was made good."""
    last = {
        each.place: each
        for each in sorted(tasks, key=lambda each: each.at)
        if each.guest in (0, guest) and not each.is_verification
    }
    return [
        f"the last backup task {'of' if each.guest else 'that may concern'} {name} at {each.place} failed"
        f" ({each.at:%Y-%m-%d %H:%M} UTC): {each.status}"
        for each in last.values()
        if each.failed and not any(copy.at >= each.at for copy in copies)
    ]
