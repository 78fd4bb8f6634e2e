"""How the copies stand: each backup's numbers, what is wrong at a target, and whether the rules of `require` are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.core.archive.manifest import Record
from tasks.core.copies.state import CopyEntry, TargetState, is_locked, newest
from tasks.core.policy.chains import chain_of
from tasks.core.policy.copy_counts import CopyCounts, SystemPlace, TargetStatus
from tasks.core.policy.settings import LOCAL_MEDIUM, CopyTarget, Require
from tasks.core.policy.status import Problem
from tasks.core.units import duration_text

NAMED = 3


@dataclass(frozen=True, slots=True)
class SeenCopies:
    """A target of the settings, and what is remembered of it."""

    target: CopyTarget
    state: TargetState

    def copy_of(self, record: Record) -> CopyEntry | None:
        """Give the copy of exactly these bytes; None where there is none that counts, or where what it needs is not there."""
        links = chain_of(record)
        found = [self.state.copies.get(each.name) for each in links]
        for entry, link in zip(found, links, strict=True):
            if entry is None or not entry.counts or entry.sha256 != link.sha256:
                return None
        return found[-1]

    def status(self) -> TargetStatus:
        """Sum it up."""
        last = newest(self.state.copies)
        count = sum(each.counts for each in self.state.copies.values())
        return TargetStatus(self.target.name, count, last.created_at if last else None, self.state.error)


def copy_counts_of(
    record: Record, seen: Sequence[SeenCopies], now: datetime, system: Sequence[SystemPlace] = ()
) -> CopyCounts:
    """Count a backup's copies, the repository's own among them. Immutable is what the target itself answered to be locked, or refused to remove.

    A place with backups of the whole system counts as one where they hold the data of the backup's moment: never as immutable.
    """
    copies = [(each, entry) for each in seen if (entry := each.copy_of(record)) is not None]
    around = [each for each in system if each.holds(record.manifest.created_at)]
    verdict = record.verification
    errors = None
    if record.verified:
        errors = 0
    elif verdict is not None and verdict.archive_sha256 == record.sha256 and verdict.verdict in ("different", "failed"):
        errors = max(1, len(verdict.differences))
    return CopyCounts(
        copies=1 + len(copies) + len(around),
        media=len({LOCAL_MEDIUM, *(each.target.kept_on for each, _ in copies), *(each.medium for each in around)}),
        off_site=sum(each.target.off_site for each, _ in copies) + sum(each.off_site for each in around),
        immutable=sum(is_locked(entry, now) or bool(each.state.refused) for each, entry in copies),
        errors=errors,
    )


def wipeable(seen: SeenCopies, now: datetime) -> bool:
    """Tell whether this machine could remove the newest copy at a target, as far as is known: it is not locked, and no removal was refused.

    The lock of an older one may have ended: retention is about to remove it.
    """
    last = newest(seen.state.copies)
    locked = bool(seen.target.lock_days) and (last is None or is_locked(last, now))
    return not locked and not seen.state.refused


def is_kept(require: Require, copy_counts: CopyCounts) -> bool:
    """Tell whether a backup's numbers are those that are required."""
    return not _lacking(require, copy_counts)


def newest_proven_away(records: Sequence[Record], seen: Sequence[SeenCopies]) -> datetime | None:
    """Give the moment of the newest verified backup of which an off-site target has a copy; None where there is none. `records` are newest first."""
    away = [each for each in seen if each.target.off_site]
    return next(
        (each.manifest.created_at for each in records if each.verified and any(at.copy_of(each) for at in away)), None
    )


def require_problems(
    require: Require,
    records: Sequence[Record],
    seen: Sequence[SeenCopies],
    now: datetime,
    system: Sequence[SystemPlace] = (),
) -> list[Problem]:
    """Tell where no backup of the last hours keeps the rules; `records` are newest first, and none is asked for before that time has passed."""
    limit = timedelta(hours=require.within_hours)
    if (
        not records
        or require == Require(within_hours=require.within_hours)
        or now - records[-1].manifest.created_at <= limit
    ):
        return []
    recent = [each for each in records if now - each.manifest.created_at <= limit]
    if any(is_kept(require, copy_counts_of(each, seen, now, system)) for each in recent):
        return []
    found = copy_counts_of(records[0], seen, now, system)
    lacking = ", ".join(_lacking(require, found)) or "it is too old"
    text = (
        f"no backup of the last {require.within_hours:g} hours is kept as `require` asks: the newest, {records[0].manifest.name},"
        f" has {lacking} ({found}: copies, media, off-site, immutable, errors)"
    )
    return [Problem("require", text)]


def copy_problems(records: Sequence[Record], seen: Sequence[SeenCopies], now: datetime) -> list[Problem]:
    """Tell what is wrong at each target: overdue, missing or damaged copies, and what waiting will not cure."""
    texts = []
    for each in seen:
        name, state = each.target.name, each.state
        if overdue := _overdue(each, records, now):
            texts.append(overdue)
        elif state.error and state.error_is_lasting:
            texts.append(state.error)
        for problem, meaning in (
            ("missing", f"missing at target {name} although nobody here removed them; once you know why: `mailarchiver-backup copy {name} --accept`"),
            ("damaged", f"damaged at target {name}: they are not what was sealed, and are sent again while the repository has them"),
        ):  # fmt: skip
            found = sorted(key for key, entry in state.copies.items() if entry.problem == problem)
            if found:
                more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
                texts.append(f"copies of {', '.join(found[:NAMED])}{more} are {meaning}")
    return [Problem("copies", text) for text in texts]


def copy_notes(seen: Sequence[SeenCopies]) -> list[str]:
    """Tell what is no alarm yet: a target that did not answer, one that refuses to remove."""
    notes = [
        f"{each.state.error}; tried again by the next run" for each in seen
        if each.state.error and not each.state.error_is_lasting
    ]  # fmt: skip
    return notes + [
        f"target {each.target.name} keeps what retention would remove: {each.state.refused}"
        for each in seen
        if each.state.refused
    ]


def _overdue(seen: SeenCopies, records: Sequence[Record], now: datetime) -> str:
    """Say that a target is overdue, where the repository has a newer backup that it lacks."""
    wanted = next((each for each in records if not each.refuted), None)  # what is refuted is not copied
    if wanted is None or seen.copy_of(wanted) is not None:
        return ""
    name, hours, last = seen.target.name, seen.target.within_hours, newest(seen.state.copies)
    since = last.created_at if last is not None else records[-1].manifest.created_at
    if now - since <= timedelta(hours=hours):
        return ""
    why = f"; the last try: {seen.state.error}" if seen.state.error else ""
    limit = f"at most {hours:g} hours were asked for{why}"
    if last is None:
        return f"overdue at target {name}: there is no copy at all; {limit}"
    return f"overdue at target {name}: the newest copy there is {duration_text((now - since).total_seconds())} old; {limit}"


def _lacking(require: Require, found: CopyCounts) -> list[str]:
    wanted = (
        ("copies", found.copies, require.copies), ("kinds of media", found.media, require.media),
        ("off-site", found.off_site, require.off_site), ("immutable", found.immutable, require.immutable),
    )  # fmt: skip
    lacking = [f"{have} of {want} {what}" for what, have, want in wanted if have < want]
    if require.verified and found.errors != 0:
        lacking.append("no verification" if found.errors is None else f"{found.errors} errors in its verification")
    return lacking
