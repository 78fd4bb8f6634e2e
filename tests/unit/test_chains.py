"""What an incremental backup builds on, and what keeps it from building on the wrong thing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.archive.manifest import Record
from tasks.core.copies.judge import SeenCopies, copy_counts_of
from tasks.core.copies.plan import plan_removal, plan_sending
from tasks.core.copies.state import CopyEntry, TargetState
from tasks.core.policy.chains import ChainRules, ServerHistory, chain_of, missing_links, plan_increment
from tasks.core.policy.due import verification_due
from tasks.core.policy.retention import Candidate, plan_retention
from tasks.core.policy.settings import CopyTarget, Retention, VerificationPolicy
from tests.unit.values import NOW, record

RULES = ChainRules(full_after_days=30, full_after_links=120)


def token(number: int) -> str:
    return f"{number:016x}"


def chain(length: int, *, nights: float = 24) -> list[Record]:
    """Make a chain with one link a night, the newest first."""
    made: list[Record] = []
    for number in range(length):
        parents = [*chain_of(made[0])] if made else []
        new = record((length - number) * nights, method="online", history=token(number), parents=parents)
        made.insert(0, new.model_copy(update={"sha256": f"sha-{number}"}))
    return made


def there(records: list[Record]) -> dict[str, str]:
    return {each.manifest.name: each.sha256 for each in records}


def server(records: list[Record], **changes: object) -> ServerHistory:
    found = ServerHistory("7", 17, True, tuple(each.manifest.history for each in reversed(records)))
    return replace(found, **changes)  # type: ignore[arg-type]


def test_it_builds_on_the_newest() -> None:
    records = chain(3)
    found = plan_increment("auto", records, there(records), server(records), RULES, now=NOW)
    assert (found.parent, found.why_full) == (records[0], "")
    assert [each.name for each in chain_of(records[0])] == [each.manifest.name for each in reversed(records)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"major": 16}, "PostgreSQL 16 does not note what changes"),
        ({"summarizes": False}, "summarize_wal is off"),
        ({"system_identifier": "8"}, "is of another cluster (7, this is 8)"),
        ({"major": 18}, "is of PostgreSQL 17, this is 18"),
        ({"tokens": ()}, "the server did not go on from"),
    ],
)
def test_a_server_that_did_not_go_on_gets_a_full_one(changes: dict[str, object], why: str) -> None:
    records = chain(2)
    found = plan_increment("incremental", records, there(records), server(records, **changes), RULES, now=NOW)
    assert found.parent is None
    assert why in found.why_full


def test_a_server_that_was_set_back_builds_on_what_it_still_went_on_from() -> None:
    """A snapshot of its machine brings its tokens of that time; WAL positions would not tell."""
    records = chain(4)
    found = plan_increment("auto", records, there(records), server(records[2:]), RULES, now=NOW)
    assert found.parent == records[2]


def test_a_broken_chain_is_built_on_where_it_is_whole() -> None:
    """A missing, exchanged or refuted link ends it for all that need it; the reason of the newest is told where none is left."""
    records = chain(3)
    for broken in (
        {name: sha for name, sha in there(records).items() if name != records[1].manifest.name},
        there(records) | {records[1].manifest.name: "another"},
    ):
        assert plan_increment("auto", records, broken, server(records), RULES, now=NOW).parent == records[2]
    refuted = [records[0], record(48, method="online", verdict="different"), records[2]]
    refuted[1] = refuted[1].model_copy(update={"manifest": records[1].manifest, "sha256": records[1].sha256})
    assert plan_increment("auto", refuted, there(records), server(records), RULES, now=NOW).parent == records[2]
    found = plan_increment("auto", records, {}, server(records), RULES, now=NOW)
    assert found.parent is None
    assert "is missing" in found.why_full


def test_a_full_one_is_due_from_time_to_time() -> None:
    records = chain(3)
    for rules, why in ((ChainRules(30, 3), "the chain has 3 links"), (ChainRules(2, 99), "is 2 days old or more")):
        assert why in plan_increment("auto", records, there(records), server(records), rules, now=NOW).why_full
        assert plan_increment("incremental", records, there(records), server(records), rules, now=NOW).parent
    assert plan_increment("full", records, there(records), server(records), RULES, now=NOW).why_full == ""


def test_a_dump_is_built_on_by_nobody() -> None:
    records = [record(1)]
    found = plan_increment("auto", records, there(records), server([]), RULES, now=NOW)
    assert "no online backup yet" in found.why_full


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    keep_days=st.integers(0, 20),
    keep_last=st.integers(0, 6),
    keep_weekly=st.integers(0, 4),
    verified=st.integers(0, 2**40),
    locked=st.integers(0, 2**40),
)
def test_no_plan_removes_what_a_kept_backup_needs(
    lengths: list[int], keep_days: int, keep_last: int, keep_weekly: int, verified: int, locked: int
) -> None:
    """In the repository and at a target; and what is kept for another one's sake is locked for as long as that."""
    candidates: list[Candidate] = []
    for length in lengths:
        names: list[str] = []
        for _ in range(length):
            number = len(candidates)
            proof = "verified" if verified >> number & 1 else "unverified"
            moment = NOW.replace(year=2025) + (NOW - NOW.replace(day=29)) * number
            candidates.append(Candidate(f"b{number:03d}", moment, proof, needs=tuple(names)))  # type: ignore[arg-type]
            names.append(f"b{number:03d}")
    policy = Retention(keep_days=keep_days, keep_last=max(keep_last, 1), keep_weekly=keep_weekly, minimum_verified=1)
    kept_there = [f"b{number:03d}" for number in range(len(candidates)) if locked >> number & 1]
    everything = [each.name for each in candidates]
    at_target = plan_removal(candidates, [], policy, now=NOW, whole=everything, locked=kept_there)
    for plan in (plan_retention(candidates, policy, now=NOW), at_target):
        kept = {each.name: each for each in plan.decisions if each.keep}
        for each in candidates:
            for needed in each.needs if each.name in kept else ():
                assert needed in kept
                if kept[each.name].until is not None:
                    assert kept[needed].until is not None
                    assert kept[needed].until >= kept[each.name].until  # type: ignore[operator]
    sent = plan_sending(candidates, [], policy, now=NOW, whole=[]).send
    for each in candidates:
        if each.name in sent:
            assert all(sent.index(needed) < sent.index(each.name) for needed in each.needs)


def entry(of: Record, **changes: object) -> CopyEntry:
    known = {"file": of.file, "bytes": of.bytes, "sha256": of.sha256, "created_at": NOW, "copied_at": NOW}
    return CopyEntry.model_validate(known | changes)


def test_a_copy_without_what_it_needs_is_none() -> None:
    newest, full = chain(2)
    target = CopyTarget(name="away", remote="away:mail")
    both = {full.manifest.name: entry(full), newest.manifest.name: entry(newest)}
    assert copy_counts_of(newest, [SeenCopies(target, TargetState(copies=both))], NOW).copies == 2
    for broken in ({newest.manifest.name: entry(newest)}, both | {full.manifest.name: entry(full, sha256="other")}):
        seen = SeenCopies(target, TargetState(copies=broken))
        assert copy_counts_of(newest, [seen], NOW).copies == 1


def test_what_is_missing_is_named() -> None:
    newest, full = chain(2)
    assert missing_links(newest.manifest, there([full])) == []
    assert full.file in missing_links(newest.manifest, {})[0]
    assert "another archive" in missing_links(newest.manifest, {full.manifest.name: "x"})[0]


def test_hourly_ones_are_verified_once_a_day() -> None:
    records = chain(30, nights=1)
    policy = VerificationPolicy(when="after_backup")
    assert verification_due(records, policy)
    proven = record(20, method="online", verdict="verified")
    known = [*records[:19], records[19].model_copy(update={"verification": proven.verification}), *records[20:]]
    assert not verification_due(known, policy)
    assert verification_due(chain(30)[:1] + known[25:], policy)
