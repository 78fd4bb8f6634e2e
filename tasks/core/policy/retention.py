"""Which backups are kept, which may go, and why: a pure plan, made before anything is removed.

A rule can only keep. A backup is removed when no rule keeps it, and nothing is removed at all while something is odd: no proven
backup, content that shrank, a clock that jumped. Ages are counted from the newest backup, not from the clock: a clock that runs
ahead, or a host that was off for a month, ages nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from tasks.core.policy.clocks import JUMP, Dated, ahead_problem, is_ahead, jump_problem
from tasks.core.policy.settings import Retention

Proof = Literal["verified", "unverified", "refuted"]

# Why a backup stays that no rule keeps.
PAUSED = "no rule keeps it, but pruning is paused"

# A century of months: beyond it "for ever" is meant, and the calendar ends.
PERIODS_LIMIT = 1200

_WORTH: dict[Proof, int] = {"verified": 2, "unverified": 1, "refuted": 0}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backup as retention sees it. `created` is of the manifest; `refuted` is one whose verification failed.

    `foreign` says why it must never be removed ("" where it is ours); such a backup fills no rule's place either.
    `rows` and `database_bytes` are what it holds, where that is known; `accepted` marks one whose loss of content
    somebody has accepted, `confirmed` one whose date somebody has said to be right. `needs` names the backups without
    which it is none. `subject` is what it is a backup of where that is not the mail database but the system around.
    """

    name: str
    created: datetime
    proof: Proof = "unverified"
    foreign: str = ""
    rows: int | None = None
    database_bytes: int | None = None
    accepted: bool = False
    confirmed: bool = False
    needs: tuple[str, ...] = ()
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one backup, with every reason.

    `until` is the moment before which its rules let it go in no case, as far as dates can tell; `undated` says that
    something keeps it which knows no date: a count, a floor, or a day, week or month that is not over.
    """

    name: str
    keep: bool
    reasons: tuple[str, ...]
    until: datetime | None = None
    undated: bool = False


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """Decisions, newest backup first; `paused` holds the reasons why nothing is removed although rules would."""

    decisions: tuple[Decision, ...]
    paused: tuple[str, ...] = ()

    @property
    def removed(self) -> tuple[str, ...]:
        """Names of the backups that go, newest first."""
        return tuple(decision.name for decision in self.decisions if not decision.keep)


@dataclass(frozen=True, slots=True)
class Shrink:
    """A loss of content: `name` holds much less than the verified `reference` before it."""

    name: str
    reference: str
    what: str
    before: int
    after: int

    def __str__(self) -> str:
        """Tell the loss in a sentence."""
        lost = 100 * (self.before - self.after) / self.before
        return f"{self.name} holds {self.after:,} {self.what} where {self.reference} held {self.before:,} ({lost:.0f} % less)"


def find_shrinks(candidates: Collection[Candidate], limit_percent: float) -> tuple[Shrink, ...]:
    """Find every backup that holds much less than the last verified one that had not shrunk itself, oldest first.

    So a database that was emptied stays noticed, however many nights its empty backups are verified, until its content is back or
    the loss is accepted.
    """
    found: list[Shrink] = []
    reference: Candidate | None = None
    for candidate in sorted(candidates, key=_age):
        if candidate.foreign or candidate.subject or candidate.proof == "refuted":
            continue
        shrink = _shrink_between(reference, candidate, limit_percent) if reference and not candidate.accepted else None
        if shrink is not None:
            found.append(shrink)
        elif candidate.accepted or candidate.proof == "verified":
            reference = candidate
    return tuple(found)


def current_shrinks(candidates: Collection[Candidate], limit_percent: float) -> tuple[Shrink, ...]:
    """Give the shrinks that still hold: those after the newest sound backup; none once the content is back."""
    shrinks = find_shrinks(candidates, limit_percent)
    shrunk = {shrink.name for shrink in shrinks}
    sound = [
        each
        for each in candidates
        if not each.foreign
        and not each.subject
        and each.name not in shrunk
        and (each.accepted or each.proof == "verified")
    ]
    last_sound = max(sound, key=_age, default=None)
    created = {each.name: each for each in candidates}
    return tuple(shrink for shrink in shrinks if last_sound is None or _age(created[shrink.name]) > _age(last_sound))


def plan_retention(
    candidates: Collection[Candidate],
    policy: Retention,
    *,
    now: datetime,
    paused: Sequence[str] = (),
    runs: Collection[datetime] = (),
) -> RetentionPlan:
    """Decide what is kept, with reasons.

    `paused` are the caller's own reasons to remove nothing (the last run failed). Whatever the policy says: foreign
    files are kept; the newest backup and the newest `minimum_verified` verified ones are kept, of which those that
    shrank count only where there are too few others; nothing goes where no backup is verified, where content shrank, or
    where dates (and `runs`, the moments of the runs that are remembered) say that a clock jumped. One that is dated
    after now fills no rule's place. Backups of the system around are counted apart, those of each guest for themselves:
    they keep no backup of the database, and push out none.
    """
    held = [*paused, *_clock_problems([each for each in candidates if not each.foreign], runs, now)]
    around = [each for each in candidates if each.subject and not each.foreign]
    apart = {each.name for each in around}
    plan = _plan_database([each for each in candidates if each.name not in apart], policy, now=now, held=held)
    system = _plan_system(around, policy, now=now, is_held=bool(held))
    created = {each.name: each for each in candidates}
    decisions = sorted((*plan.decisions, *system), key=lambda each: _age(created[each.name]), reverse=True)
    return RetentionPlan(tuple(decisions), plan.paused)


def _plan_database(
    candidates: Collection[Candidate], policy: Retention, *, now: datetime, held: Sequence[str]
) -> RetentionPlan:
    """Decide on backups of the mail database, and on files that are not ours; `held` are reasons to remove nothing."""
    ahead = {each.name for each in candidates if not each.foreign and is_ahead(each.created, now)}
    present = [each for each in candidates if each.name not in ahead]
    ours = sorted((each for each in present if not each.foreign), key=_age, reverse=True)
    shrunk = {shrink.name for shrink in find_shrinks(present, policy.shrink_limit_percent)}
    verified = [each for each in ours if each.proof == "verified"]
    sound = [each for each in verified if each.name not in shrunk]
    reasons: dict[str, list[str]] = {each.name: [] for each in ours}

    if ours:
        reasons[ours[0].name].append("the newest")
    for place, each in enumerate(sound[: policy.minimum_verified], 1):
        reasons[each.name].append(
            "the newest verified" if place == 1 else f"verified, {place} of at least {policy.minimum_verified}"
        )
    missing = max(0, policy.minimum_verified - len(sound))
    for each in [each for each in verified if each.name in shrunk][:missing]:
        reasons[each.name].append(f"verified, though it holds less: fewer than {policy.minimum_verified} hold more")
    if verified and not reasons[verified[0].name]:
        reasons[verified[0].name].append("the newest verified, though it holds less")
    dated_ends: dict[str, datetime] = {}
    undated = {name for name, found in reasons.items() if found}
    for each, reason, end in _kept_by_rules(ours, shrunk, policy):
        reasons[each.name].append(reason)
        if end is None:
            undated.add(each.name)
        else:
            dated_ends[each.name] = max(end, dated_ends.get(each.name, end))

    odd = [*held, *_oddities(ours, sound, policy)]
    odd += [f"content shrank: {shrink}" for shrink in current_shrinks(present, policy.shrink_limit_percent)]
    decisions = []
    for each in sorted(candidates, key=_age, reverse=True):
        if each.foreign:
            decisions.append(Decision(each.name, True, (each.foreign,)))
        elif each.name in ahead:
            decisions.append(Decision(each.name, True, ("it is dated after now, and counts for nothing",)))
        elif reasons[each.name]:
            until = dated_ends.get(each.name)
            decisions.append(Decision(each.name, True, tuple(reasons[each.name]), until, each.name in undated))
        elif odd:
            decisions.append(Decision(each.name, True, (PAUSED,)))
        else:
            decisions.append(Decision(each.name, False, ("no rule keeps it",)))
    return RetentionPlan(with_needed(decisions, {each.name: each.needs for each in candidates}), tuple(odd))


def _clock_problems(ours: Collection[Candidate], runs: Collection[datetime], now: datetime) -> list[str]:
    """Say what the dates of our own backups tell of the clock: some are after now, or it jumped."""
    ahead = sorted(each.name for each in ours if is_ahead(each.created, now))
    dated = [Dated(each.name, each.created, each.confirmed) for each in ours if each.name not in ahead]
    return [each for each in (ahead_problem(ahead, now), jump_problem(dated, runs, now)) if each]


def _plan_system(around: Collection[Candidate], policy: Retention, *, now: datetime, is_held: bool) -> list[Decision]:
    """Decide on backups of the system around, of each guest for itself: by the same rules, and the newest of each stay.

    Where the clock is wrong or the last run failed nothing of them goes either (`is_held`).
    """
    decisions: list[Decision] = []
    for subject in sorted({each.subject for each in around}):
        there = [each for each in around if each.subject == subject]
        ahead = [each for each in there if is_ahead(each.created, now)]
        decisions += [
            Decision(each.name, True, ("it is dated after now, and counts for nothing",), undated=True)
            for each in ahead
        ]
        ours = sorted((each for each in there if each not in ahead), key=_age, reverse=True)
        kept = _kept_by_rules(ours, (), policy)
        for place, each in enumerate(ours):
            reasons = (
                [f"one of the newest {policy.minimum_verified} of {subject}"] if place < policy.minimum_verified else []
            )
            undated, ends = bool(reasons), []
            for one, reason, end in kept:
                if one.name == each.name:
                    reasons.append(reason)
                    undated = undated or end is None
                    ends += [end] if end is not None else []
            if reasons:
                decisions.append(Decision(each.name, True, tuple(reasons), max(ends, default=None), undated))
            elif is_held:
                decisions.append(Decision(each.name, True, (PAUSED,)))
            else:
                decisions.append(Decision(each.name, False, (f"no rule keeps it of {subject}",)))
    return decisions


def with_needed(decisions: Sequence[Decision], needs: Mapping[str, Sequence[str]]) -> tuple[Decision, ...]:
    """Keep what a kept backup needs, as long as that is kept at least: an incremental one is none without its parents."""
    needed: dict[str, list[Decision]] = {}
    for each in decisions:
        for name in needs.get(each.name, ()) if each.keep else ():
            needed.setdefault(name, []).append(each)
    found = []
    for each in decisions:
        by = needed.get(each.name, [])
        if by:
            more = f" and {len(by) - 1} others" if len(by) > 1 else ""
            said = () if not each.keep else each.reasons
            ends = [one.until for one in (*by, *([each] if each.keep else [])) if one.until is not None]
            undated = (each.keep and each.undated) or any(one.undated for one in by)
            reasons = (*said, f"{by[0].name}{more} build on it")
            each = Decision(each.name, True, reasons, max(ends, default=None), undated)
        found.append(each)
    return tuple(found)


def _kept_by_rules(
    ours: Sequence[Candidate], shrunk: Collection[str], policy: Retention
) -> list[tuple[Candidate, str, datetime | None]]:
    """List what the rules keep, why, and until when at least; None where no date tells."""
    kept: list[tuple[Candidate, str, datetime | None]] = []
    if not ours:
        return kept
    if policy.keep_days:
        span = timedelta(days=policy.keep_days)
        reason = f"of the last {policy.keep_days} days"
        kept += [(each, reason, each.created + span) for each in ours if each.created >= ours[0].created - span]
    kept += [(each, f"one of the newest {policy.keep_last}", None) for each in ours[: policy.keep_last]]
    for word, count in (("day", policy.keep_daily), ("week", policy.keep_weekly), ("month", policy.keep_monthly)):
        best: dict[datetime, Candidate] = {}
        for each in ours:  # newest first, so an equal one never takes the place
            known = best.get(period_start(word, each.created))
            if known is None or _worth(each, shrunk) > _worth(known, shrunk):
                best[period_start(word, each.created)] = each
        chosen = sorted(best, reverse=True)[:count]
        running = period_start(word, ours[0].created)  # a later one may yet take its place
        kept += [
            (best[start], f"the best of its {word}, {len(chosen)} of {count} kept",
             period_start(word, start, later=count) if start < running else None)
            for start in chosen
        ]  # fmt: skip
    return kept


def period_start(word: str, moment: datetime, *, later: int = 0) -> datetime:
    """Give the beginning, in UTC, of the day, week or month that a moment is in, or of one so many later.

    >>> period_start("month", datetime(2026, 11, 28, 3, 30, tzinfo=UTC), later=2)
    datetime.datetime(2027, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    later = min(later, PERIODS_LIMIT)
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if word == "month":
        months = midnight.year * 12 + midnight.month - 1 + later
        return midnight.replace(year=months // 12, month=months % 12 + 1, day=1)
    if word == "week":
        return midnight - timedelta(days=midnight.weekday()) + timedelta(weeks=later)
    return midnight + timedelta(days=later)


def _oddities(ours: Sequence[Candidate], sound: Sequence[Candidate], policy: Retention) -> list[str]:
    if not ours:
        return []
    odd = []
    if not sound:
        odd.append("no backup is verified: which of them is good is not known")
    for place, (newer, older) in enumerate(itertools.pairwise(ours), 1):
        proven = sum(each in sound for each in ours[:place])
        if newer.created - older.created > JUMP and proven < policy.minimum_verified:
            days = (newer.created - older.created).days
            odd.append(
                f"{days} days lie between {older.name} and {newer.name}, and only {proven} backups are verified since: the host"
                " was off, or a clock jumped"
            )
    return odd


def _shrink_between(before: Candidate, after: Candidate, limit_percent: float) -> Shrink | None:
    amounts = (
        ("rows", before.rows, after.rows),
        ("bytes of database", before.database_bytes, after.database_bytes),
    )
    for what, old, new in amounts:
        if old and new is not None and new < old * (1 - limit_percent / 100):
            return Shrink(after.name, before.name, what, old, new)
    return None


def _worth(candidate: Candidate, shrunk: Collection[str]) -> int:
    return -1 if candidate.name in shrunk else _WORTH[candidate.proof]


def _age(candidate: Candidate) -> tuple[datetime, str]:
    return candidate.created, candidate.name
