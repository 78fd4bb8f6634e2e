"""The backup that a bare machine is set up from: the newest that counts, with why it and no other, and a clear no where none does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.archive.authenticity import Authenticity
from tasks.core.archive.manifest import Verdict
from tasks.core.copies.choose import Chosen, Found, choose
from tasks.core.errors import Refused, UsageError
from tasks.core.policy.clocks import is_ahead
from tests.unit.values import NOW, record

OWN = Authenticity("authentic")
STRANGE = Authenticity("foreign", "it is signed with a key that is not trusted here: ed25519:x")


def found(hours: float, *, whose: Authenticity = OWN, verdict: Verdict | None = None, **changes: Any) -> Found:
    about = record(hours, verdict=verdict, **changes)
    return Found(about.manifest.name, about.manifest.created_at, about, whose)


def chosen(*there: Found, wanted: str = "latest", foreign: bool = False, partial: tuple[str, ...] = ()) -> Chosen:
    return choose(there, wanted, place="/mnt/usb", now=NOW, foreign=foreign, partial=partial)


def test_the_newest_is_taken_and_why_is_told() -> None:
    old, new = found(50, verdict="verified"), found(5)
    got = chosen(old, new)
    assert got.found == new
    assert got.why == (
        f"{new.name}, 5 h 0 min old, never verified: the newest of the 2 backups at /mnt/usb, signed with a key that is known here"
    )
    assert got.older == (old.name,)
    assert "proven by a restore" in chosen(old).why


def test_what_is_newer_and_does_not_count_is_passed_over_with_the_reason() -> None:
    good = found(50)
    forged, refuted, ahead = found(1, whose=STRANGE), found(2, verdict="different"), found(-100)
    partial = "mailarchiver-backup-20260630-113000"
    got = chosen(good, forged, refuted, ahead, partial=(partial, "mailarchiver-backup-20200101-000000"))
    assert got.found == good
    told = "\n".join(got.passed_over)
    for each, why in ((forged, "not trusted here"), (refuted, "refuted"), (ahead, "dated after now")):
        assert f"{each.name}: " in told
        assert why in told
    assert f"{partial}: only a part of it is there" in told
    assert "20200101" not in told  # older than what was taken


def test_a_verdict_on_other_bytes_refutes_nothing() -> None:
    other = found(1, verdict="failed", verified_sha="of other bytes")
    assert chosen(other, found(2)).found == other


def test_without_a_known_key_nothing_is_taken_unless_that_is_said() -> None:
    there = found(5, whose=STRANGE)
    with pytest.raises(Refused, match="no backup at /mnt/usb is known here") as refused:
        chosen(there)
    assert "--trusted-key" in refused.value.hint
    assert "--foreign" in refused.value.hint
    got = chosen(there, foreign=True)
    assert (got.found, "no matter who made it" in got.why) == (there, True)


def test_two_installations_at_one_place_are_not_mixed_up() -> None:
    ours, theirs = found(5, installation="main"), found(1, installation="other")
    with pytest.raises(Refused, match="several installations") as refused:
        chosen(ours, theirs)
    assert ours.name in str(refused.value)
    assert theirs.name in str(refused.value)
    assert chosen(ours, theirs, wanted=ours.name).found == ours


def test_a_named_one_is_taken_whatever_it_is_and_a_wrong_name_is_told() -> None:
    there = found(5, whose=STRANGE, verdict="different")
    assert chosen(found(1), there, wanted=there.name).found == there
    with pytest.raises(UsageError, match="there is no backup 'mailarchiver-backup-20200101-000000'") as wrong:
        chosen(there, wanted="mailarchiver-backup-20200101-000000")
    assert there.name in wrong.value.hint
    with pytest.raises(Refused, match="only a part"):
        chosen(there, wanted="mailarchiver-backup-20200101-000000", partial=("mailarchiver-backup-20200101-000000",))


def test_an_empty_place_is_told() -> None:
    with pytest.raises(UsageError, match="there is no backup at /mnt/usb"):
        chosen()
    with pytest.raises(UsageError, match="of mailarchiver-backup-20200101-000000 only a part is there"):
        chosen(partial=("mailarchiver-backup-20200101-000000",))


def test_one_without_a_record_can_be_taken_on_ones_word() -> None:
    legacy = Found("mailarchiver-backup-20260101-000000", None, None, Authenticity("unsigned", "it has no record"))
    with pytest.raises(Refused):
        chosen(legacy)
    assert chosen(legacy, foreign=True).found == legacy


@given(
    st.lists(
        st.tuples(st.integers(-200, 200), st.booleans(), st.sampled_from([None, "verified", "different"])), max_size=8
    )
)
def test_whatever_lies_there_the_newest_that_counts_is_taken(lying: list[tuple[int, bool, Verdict | None]]) -> None:
    there = [found(hours, whose=OWN if own else STRANGE, verdict=verdict) for hours, own, verdict in lying]
    fit = [
        each
        for each in there
        if each.authenticity.counts and not each.is_refuted and each.created and not is_ahead(each.created, NOW)
    ]
    try:
        got = chosen(*there)
    except (UsageError, Refused):
        assert not fit
    else:
        assert got.found.created == max(each.created for each in fit if each.created)
