"""Retention (P4): for any history the plan keeps what must be kept, and says why."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.core.errors import UsageError
from tasks.core.policy.retention import (
    Candidate,
    Proof,
    RetentionPlan,
    current_shrinks,
    find_shrinks,
    plan_retention,
)
from tasks.core.policy.settings import Retention, parse_settings

NOW = datetime(2026, 6, 30, 4, 0, tzinfo=UTC)
GUIDE_GFS = Retention(keep_daily=7, keep_weekly=4, keep_monthly=12)


def night(number: int, *, proof: Proof = "verified", rows: int | None = 1000, foreign: str = "") -> Candidate:
    """Make the backup of so many nights ago."""
    at = NOW - timedelta(days=number)
    return Candidate(f"{at:%Y%m%d}", at, proof, foreign=foreign, rows=rows)


def kept(plan: RetentionPlan) -> set[str]:
    return {decision.name for decision in plan.decisions if decision.keep}


def test_the_guides_grandfather_father_son_scheme() -> None:
    """Of a year of nights: 7 days, 4 weeks, 12 months; a backup that serves two of them is one file."""
    plan = plan_retention([night(number) for number in range(365)], GUIDE_GFS, now=NOW)

    names = sorted(kept(plan), reverse=True)
    assert names[:7] == [f"202606{day}" for day in range(30, 23, -1)]
    assert {"20260621", "20260614"} <= set(names)  # Sundays: the newest of their weeks
    assert {"20260531", "20260228", "20250731"} <= set(names)
    assert len(names) == 7 + 2 + 11
    assert plan.removed
    assert not plan.paused


def test_every_decision_has_its_reasons() -> None:
    plan = plan_retention(
        [night(0), night(1), night(9), night(40)], Retention(keep_days=7, minimum_verified=1), now=NOW
    )

    reasons = {decision.name: decision.reasons for decision in plan.decisions}
    assert reasons["20260630"] == ("the newest", "the newest verified", "of the last 7 days")
    assert reasons["20260621"] == ("no rule keeps it",)
    assert plan.removed == ("20260621", "20260521")


def test_forty_nights_of_an_emptied_database_do_not_push_out_the_last_good_backup() -> None:
    """Each of them is verified, for it equals what was backed up; each would satisfy the floor."""
    good = [night(number) for number in range(40, 45)]
    empty = [night(number, rows=3) for number in range(40)]

    plan = plan_retention([*good, *empty], Retention(keep_last=3, minimum_verified=3), now=NOW)

    assert plan.removed == ()
    assert any("content shrank" in reason for reason in plan.paused)
    assert len(current_shrinks([*good, *empty], 20)) == 40


def test_a_shrink_is_over_once_the_content_is_back() -> None:
    history = [night(9), night(8), night(7), night(6, rows=3), night(5, rows=3), night(4), night(3), night(2), night(1)]

    assert [shrink.name for shrink in find_shrinks(history, 20)] == ["20260624", "20260625"]
    assert current_shrinks(history, 20) == ()
    plan = plan_retention(history, Retention(keep_last=2, minimum_verified=3), now=NOW)
    assert kept(plan) == {"20260629", "20260628", "20260627"}


def test_an_accepted_shrink_is_the_new_measure() -> None:
    accepted = Candidate("20260625", NOW - timedelta(days=5), "verified", rows=3, accepted=True)

    assert current_shrinks([night(9), accepted, night(1, rows=4)], 20) == ()
    assert current_shrinks([night(9), accepted, night(1, rows=1)], 20)[0].reference == "20260625"


def test_the_newest_verified_stays_although_it_holds_less() -> None:
    """A later backup's content was accepted, but that one is not proven: what is proven of today's content stays."""
    accepted = Candidate("accepted", NOW, "unverified", rows=3, accepted=True)
    plan = plan_retention([night(9), night(8, rows=3), accepted], Retention(keep_last=1, minimum_verified=1), now=NOW)

    assert plan.removed == ()


def test_the_floor_is_kept_with_what_holds_less_where_nothing_else_is_there() -> None:
    """Once the content is back those nights are no measure, but three verified ones are three verified ones."""
    policy = Retention(keep_last=1, minimum_verified=3)
    history = [night(9), night(8, rows=3), night(7, rows=3), night(0)]

    assert plan_retention(history, policy, now=NOW).removed == ("20260622",)


def test_an_unverified_backup_that_shrank_is_told_at_once() -> None:
    assert current_shrinks([night(1), night(0, rows=700, proof="unverified")], 20)[0].after == 700
    assert not current_shrinks([night(1), night(0, rows=801, proof="unverified")], 20)


def test_nothing_goes_where_nothing_is_verified() -> None:
    plan = plan_retention([night(n, proof="unverified") for n in range(9)], Retention(keep_last=1), now=NOW)

    assert plan.removed == ()
    assert "no backup is verified" in plan.paused[0]


def test_a_clock_that_jumped_pauses_pruning() -> None:
    ahead = Candidate("20990101", datetime(2099, 1, 1, tzinfo=UTC), "verified", rows=1000)
    history = [night(n) for n in range(9)]
    policy = Retention(keep_days=3)

    assert plan_retention([*history, ahead], policy, now=NOW).removed == ()
    assert plan_retention([*history, ahead], policy, now=datetime(2099, 1, 1, 1, tzinfo=UTC)).removed == ()
    # A clock that runs ahead by itself, too: no run is remembered since.
    alone = plan_retention(history, policy, now=datetime(2099, 1, 1, tzinfo=UTC))
    assert alone.removed == ()
    assert "the clock jumped" in alone.paused[0]


def test_a_refuted_backup_takes_no_other_ones_place() -> None:
    refuted = Candidate("refuted", NOW - timedelta(hours=1), "refuted", rows=1000)
    plan = plan_retention(
        [night(0, proof="unverified"), refuted, night(1), night(2)],
        Retention(keep_daily=3, minimum_verified=1),
        now=NOW,
    )

    assert plan.removed == ("refuted",)


@pytest.mark.parametrize("policy", [{}, {"keep_days": 0}, {"keep_days": 5, "minimum_verified": 0}])
def test_a_policy_that_keeps_nothing_is_refused(policy: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        parse_settings(
            {"installations": {"main": {"directory": "/a", "repository": "/b", "retention": policy}}}, source="the test"
        )


candidates = st.lists(
    st.builds(
        Candidate,
        name=st.uuids().map(str),
        created=st.one_of(
            st.datetimes(datetime(2026, 3, 1), datetime(2026, 6, 30), timezones=st.just(UTC)),
            st.datetimes(datetime(1990, 1, 1), datetime(2120, 1, 1), timezones=st.just(UTC)),
        ),
        proof=st.sampled_from(["verified", "verified", "unverified", "refuted"]),
        foreign=st.sampled_from(["", "", "", "not ours"]),
        rows=st.one_of(st.none(), st.integers(0, 5), st.integers(900, 1100)),
        database_bytes=st.one_of(st.none(), st.integers(0, 10), st.integers(900, 1100)),
        accepted=st.sampled_from([False, False, False, True]),
    ),
    max_size=40,
    unique_by=lambda each: each.name,
)
policies = st.builds(
    dict,
    keep_days=st.integers(0, 60),
    keep_last=st.integers(0, 9),
    keep_daily=st.integers(0, 9),
    keep_weekly=st.integers(0, 9),
    keep_monthly=st.integers(0, 14),
    minimum_verified=st.integers(1, 5),
).filter(lambda found: any(value for key, value in found.items() if key != "minimum_verified"))


@settings(max_examples=300, deadline=None)
@given(history=candidates, policy=policies.map(lambda found: Retention(**found)), data=st.data())
def test_for_any_history_the_invariants_hold(history: list[Candidate], policy: Retention, data: st.DataObject) -> None:
    """P4, for histories of good, failed, empty, unverified, future-dated and foreign backups, and any clock."""
    now = data.draw(st.datetimes(datetime(2000, 1, 1), datetime(2110, 1, 1), timezones=st.just(UTC)))
    plan = plan_retention(history, policy, now=now)
    gone = set(plan.removed)
    by_age = sorted((each for each in history if not each.foreign), key=lambda each: (each.created, each.name))
    shrunk = {shrink.name for shrink in find_shrinks(history, policy.shrink_limit_percent)}
    verified = [each.name for each in by_age if each.proof == "verified"]
    sound = [name for name in verified if name not in shrunk]

    assert {decision.name for decision in plan.decisions} == {each.name for each in history}
    assert all(decision.reasons for decision in plan.decisions)
    assert not gone & {each.name for each in history if each.foreign}
    assert not gone & {each.name for each in by_age[-1:]}
    assert not gone & set(sound[-policy.minimum_verified :])
    assert not gone & set(verified[-1:])
    assert len(set(verified) - gone) >= min(len(verified), policy.minimum_verified)
    if gone:
        assert not plan.paused
        assert sound
        assert not current_shrinks(history, policy.shrink_limit_percent)
        assert all(each.created <= now + timedelta(hours=1) for each in by_age)
        # Since a jump of the clock, enough backups are proven.
        assert all(
            newer.created - older.created <= timedelta(days=45)
            or sum(each.name in sound for each in by_age[place:]) >= policy.minimum_verified
            for place, (older, newer) in enumerate(itertools.pairwise(by_age), 1)
        )
    # The largest of the sound ones' guarantees: what is left still has a sound backup wherever there was one.
    assert not sound or set(sound) - gone
    # Planned again with what is left, nothing more goes: pruning converges.
    left = [each for each in history if each.name not in gone]
    assert plan_retention(left, policy, now=now).removed == ()


@settings(max_examples=100, deadline=None)
@given(history=candidates, policy=policies.map(lambda found: Retention(**found)))
def test_a_caller_who_pauses_removes_nothing(history: list[Candidate], policy: Retention) -> None:
    plan = plan_retention(history, policy, now=NOW, paused=["the last run failed"])

    assert plan.removed == ()
    assert "the last run failed" in plan.paused


Event = Literal["good", "failed", "empty", "unverified", "refuted", "corrupted", "foreign"]
events: st.SearchStrategy[Event] = st.sampled_from(
    ["good", "good", "good", "failed", "empty", "unverified", "refuted", "corrupted", "foreign"]
)


@settings(max_examples=200, deadline=None)
@given(
    nights=st.lists(st.tuples(events, st.sampled_from([0, 0, 0, 0, 0, 1, -1, 90, -90, 4000])), max_size=30),
    policy=policies.map(lambda found: Retention(**found)),
)
@example(nights=[("good", 0), ("good", -1)], policy=Retention(keep_monthly=1, minimum_verified=1))
def test_night_after_night_the_last_good_one_stays(nights: list[tuple[Event, int]], policy: Retention) -> None:
    """P4 as it is lived: something happens each night, its clock some days wrong at times, and what the plan lets go is gone for good."""
    there: list[Candidate] = []
    for number, (event, wrong_days) in enumerate(nights):
        now = NOW + timedelta(days=number + wrong_days)
        last_good = max((each for each in there if is_good(each)), key=_age, default=None)
        if event != "failed":
            there.append(backup_of(event, number, now))
        good = [each for each in there if is_good(each)]

        plan = plan_retention(there, policy, now=now, paused=["the last backup failed"] if event == "failed" else [])
        there = [each for each in there if each.name not in plan.removed]

        left = [each for each in there if is_good(each)]
        assert event != "failed" or not plan.removed
        assert last_good is None or event == "good" or last_good in left
        assert not good or max(good, key=_age) in left
        assert len(left) >= min(len(good), policy.minimum_verified)
        assert {each.name for each in there if each.foreign} == {
            f"{earlier}" for earlier, (kind, _) in enumerate(nights[: number + 1]) if kind in ("corrupted", "foreign")
        }


def backup_of(event: Event, number: int, at: datetime) -> Candidate:
    """Make the backup that a night leaves; one whose file is no longer what its record says counts as foreign."""
    proof: Proof = "verified" if event in ("good", "empty") else "refuted" if event == "refuted" else "unverified"
    foreign = {"corrupted": "it is not the file that its record describes", "foreign": "not ours"}.get(event, "")
    return Candidate(str(number), at, proof, foreign=foreign, rows=3 if event == "empty" else 1000 + number)


def _age(candidate: Candidate) -> tuple[datetime, str]:
    """Order backups as the plan does: two of one moment by name."""
    return candidate.created, candidate.name


def is_good(candidate: Candidate) -> bool:
    return candidate.proof == "verified" and candidate.rows != 3


def test_backups_of_guests_are_counted_apart() -> None:
    """A guest's newer backups push out none of the database, keep none, and are no proof of it; those of each guest count for themselves."""
    policy = Retention(keep_last=2, minimum_verified=1)
    guests = [
        Candidate(f"{subject} {number}", NOW - timedelta(days=number, hours=1), subject=subject)
        for subject in ("lxc mail", "vm mail")
        for number in range(4)
    ]
    nights = [night(number, proof="verified" if number == 9 else "unverified") for number in range(5, 10)]

    plan = plan_retention([*guests, *nights], policy, now=NOW)

    alone = plan_retention(nights, policy, now=NOW)
    assert kept(plan) == kept(alone) | {"lxc mail 0", "lxc mail 1", "vm mail 0", "vm mail 1"}
    assert plan.paused == alone.paused
    assert "20260621" in kept(plan), "the only proven one"


def test_no_guests_backup_proves_the_database() -> None:
    guests = [Candidate(f"lxc {number}", NOW - timedelta(days=number), subject="lxc mail") for number in range(3)]
    plan = plan_retention(
        [*guests, *(night(number, proof="unverified") for number in range(9))], Retention(keep_last=1), now=NOW
    )

    assert not {each for each in plan.removed if each.startswith("2026")}
    assert any("no backup is verified" in reason for reason in plan.paused)
    assert not find_shrinks([*guests, night(5), replace(guests[0], rows=1, proof="verified")], 20)


def test_a_wrong_clock_or_a_failed_run_removes_no_guests_backup_either() -> None:
    policy = Retention(keep_last=1, minimum_verified=1)
    guests = [Candidate(f"lxc {number}", NOW - timedelta(days=number), subject="lxc mail") for number in range(3)]
    everything = [*guests, *(night(number) for number in range(3))]

    later = plan_retention(everything, policy, now=NOW + timedelta(days=3650))
    assert not later.removed
    assert any("the clock jumped" in reason for reason in later.paused)
    ahead = plan_retention(
        [*everything, Candidate("lxc later", NOW + timedelta(days=99), subject="lxc mail")], policy, now=NOW
    )
    assert not ahead.removed
    assert not plan_retention(everything, policy, now=NOW, paused=["the last run failed"]).removed
    assert {each for each in plan_retention(everything, policy, now=NOW).removed if "lxc" in each} == {"lxc 1", "lxc 2"}
