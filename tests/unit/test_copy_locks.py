"""Until when copies are locked: as long as their retention keeps them, never less than was asked for, and never shorter than before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.copies.locks import EQUAL, LONGEST, lock_end
from tasks.core.policy.retention import Candidate, Decision, plan_retention
from tasks.core.policy.settings import Retention

DAY = timedelta(days=1)
# A Monday, and not the first of its month.
FIRST = datetime(2026, 3, 9, 3, 30, tzinfo=UTC)


def decided(retention: Retention, nights: Sequence[datetime], now: datetime) -> dict[datetime, Decision]:
    """Decide on the backups of these nights, all of them verified."""
    plan = plan_retention([Candidate(f"{at:%Y%m%d}", at, "verified") for at in nights], retention, now=now)
    by_name = {each.name: each for each in plan.decisions}
    return {at: by_name[f"{at:%Y%m%d}"] for at in nights}


def locks_of(
    retention: Retention, nights: int, lock_days: int
) -> tuple[dict[datetime, datetime], dict[datetime, datetime]]:
    """Copy for so many nights; give the locks of all copies, and when retention first let each go."""
    made, locks, gone = list[datetime](), dict[datetime, datetime](), dict[datetime, datetime]()
    for number in range(nights):
        at = FIRST + number * DAY
        made.append(at)
        now = at + timedelta(minutes=10)
        for each, decision in decided(retention, [each for each in made if each not in gone], now).items():
            if not decision.keep:
                gone[each] = now
                continue
            end = lock_end(decision, lock_days=lock_days, sent_at=each, locked_until=locks.get(each), now=now)
            assert end is None or end > locks.get(each, now), "a lock is never made shorter"
            locks[each] = end or locks[each]
    return locks, gone


def test_days_lock_until_their_end_from_the_first_day_on() -> None:
    locks, gone = locks_of(Retention(keep_days=30, minimum_verified=1), 40, 7)

    assert locks[FIRST] == FIRST + 30 * DAY
    assert timedelta(0) <= gone[FIRST] - locks[FIRST] <= 2 * DAY
    locks, _ = locks_of(Retention(keep_days=3, minimum_verified=1), 5, 14)
    assert all(timedelta(0) <= end - at - 14 * DAY < DAY for at, end in locks.items()), "at least so many days"


def test_grandfather_father_and_son_are_locked_until_each_one_goes_and_no_longer() -> None:
    """Each night is the best of its week and month for a day; only the one that stays so is locked for weeks and months."""
    locks, gone = locks_of(Retention(keep_daily=7, keep_weekly=4, keep_monthly=12, minimum_verified=1), 430, 2)

    # The longest that a lock outlasts its retention is what was asked for at least.
    assert max(locks[at] - end for at, end in gone.items()) <= 2 * DAY
    # And while a copy is kept, whatever keeps it, its lock holds until within a day of its end.
    assert max(end - locks[at] for at, end in gone.items()) <= DAY
    ends = {at: round((locks[at] - at) / DAY) for at in gone}
    assert ends[FIRST] in (7, 8)
    assert ends[datetime(2026, 3, 15, 3, 30, tzinfo=UTC)] in range(21, 29), "the Sunday is the best of its week"
    assert ends[datetime(2026, 3, 31, 3, 30, tzinfo=UTC)] in range(330, 366), "the last of its month"


def test_what_only_a_count_keeps_is_renewed_as_long_as_it_is_kept() -> None:
    """No date says when `keep_last` lets it go; so it is never without a lock, and has one for `lock_days` at most when it goes."""
    locks, gone = locks_of(Retention(keep_last=20, minimum_verified=1), 60, 10)

    assert all(locks[at] > end - DAY for at, end in gone.items())
    assert all(locks[at] - end <= 10 * DAY for at, end in gone.items())


def test_what_no_rule_keeps_is_not_locked_any_longer() -> None:
    """Pruning that is paused, another's backups and those dated after now: a lock would outlast the oddity."""
    plan = plan_retention(
        [Candidate("new", FIRST, "unverified"), Candidate("old", FIRST - 9 * DAY), Candidate("ahead", FIRST + 9 * DAY), Candidate("theirs", FIRST, foreign="another's")],
        Retention(keep_last=1), now=FIRST,
    )  # fmt: skip
    found = {each.name: (each.until, each.undated) for each in plan.decisions}
    assert all(each.keep for each in plan.decisions)
    assert found == {"new": (None, True), "old": (None, False), "ahead": (None, False), "theirs": (None, False)}
    (old,) = [each for each in plan.decisions if each.name == "old"]
    assert lock_end(old, lock_days=30, sent_at=FIRST, locked_until=None, now=FIRST) is None


def test_nothing_is_locked_where_nothing_was_asked_for() -> None:
    kept = Decision("b", True, ("a rule",), FIRST + 30 * DAY)
    assert lock_end(kept, lock_days=0, sent_at=FIRST, locked_until=None, now=FIRST) is None


def test_a_lock_that_is_asked_for_later_is_made_and_one_for_ever_has_a_bound() -> None:
    """Copies of before `lock_days`; and a count of months that means "always" locks no bucket for a century."""
    kept = Decision("b", True, ("a rule",), FIRST + 30 * DAY)
    now = FIRST + 10 * DAY
    assert lock_end(kept, lock_days=5, sent_at=FIRST, locked_until=None, now=now) == FIRST + 30 * DAY
    old, new = FIRST, FIRST + 70 * DAY
    for_ever = decided(Retention(keep_monthly=100_000, minimum_verified=1), [old, new], new)[old]
    first = lock_end(for_ever, lock_days=5, sent_at=old, locked_until=None, now=new)
    assert first == new + LONGEST
    assert lock_end(for_ever, lock_days=5, sent_at=old, locked_until=first, now=new + DAY) is None, (
        "not one day more each day"
    )
    assert (
        lock_end(for_ever, lock_days=5, sent_at=old, locked_until=first, now=new + LONGEST * 0.6) == new + LONGEST * 1.6
    )


@settings(deadline=None, max_examples=200)
@given(
    st.builds(Retention, keep_days=st.integers(0, 400), keep_last=st.integers(1, 50), keep_daily=st.integers(0, 9), keep_weekly=st.integers(0, 9), keep_monthly=st.integers(0, 40)),
    st.lists(st.integers(0, 500), min_size=1, max_size=30, unique=True), st.integers(1, 400), st.none() | st.integers(-400, 4000),
)  # fmt: skip
def test_a_lock_is_only_ever_made_longer(
    retention: Retention, nights: list[int], lock_days: int, held_days: int | None
) -> None:
    now = FIRST + 500 * DAY
    held = now + held_days * DAY if held_days is not None else None
    for at, decision in decided(retention, sorted(FIRST + each * DAY for each in nights), now).items():
        end = lock_end(decision, lock_days=lock_days, sent_at=at, locked_until=held, now=now)
        if end is not None:
            assert end > max(held or now, now) + EQUAL
            assert end <= now + LONGEST
        elif decision.until is not None and decision.until < now + LONGEST:
            assert max(held or now, now) + EQUAL >= decision.until


@pytest.mark.parametrize(
    ("kept", "until"),
    [
        (Retention(keep_days=10, keep_daily=20, minimum_verified=1), FIRST.replace(hour=0, minute=0) + 20 * DAY),
        (Retention(keep_weekly=1, minimum_verified=1), None),
        (Retention(keep_days=10, keep_last=5, minimum_verified=1), FIRST + 10 * DAY),
    ],
)
def test_the_longest_of_its_rules_counts(kept: Retention, until: datetime | None) -> None:
    """A week that is not over promises nothing: the night to come takes the place."""
    nights = [FIRST, FIRST + DAY]
    assert decided(kept, nights, nights[1])[FIRST].until == until
