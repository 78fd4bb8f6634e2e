"""Whose backup is it (P22): the key decides, and what others can write decides nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.archive.authenticity import (
    Authenticity,
    Trust,
    authenticity_of,
    manifest_digest,
    places_of,
    sign_manifest,
    sign_record,
    with_chain,
)
from tasks.core.archive.manifest import Manifest, Record, parse_manifest, parse_record
from tasks.core.archive.signatures import canonical, holds, new_private_key, public_key, sign
from tests.unit.values import database_facts, manifest, record

OURS, THEIRS = new_private_key(), new_private_key()
TRUST = Trust("main", public_key(OURS), project="mail", system_identifier="7")


def signed(hours: float = 1, *, key: bytes = OURS, sequence: int = 1, previous: str = "", **changes: Any) -> Record:
    """Make a record as this program would."""
    found = record(hours, **changes)
    about = sign_manifest(found.manifest, key, sequence=sequence, previous=previous)
    return sign_record(found.model_copy(update={"manifest": about}), key)


def judged(found: Record | None, trust: Trust = TRUST, **more: Any) -> Authenticity:
    return authenticity_of(trust, found, **more)


def reread(found: Record, **changes: Any) -> Record:
    """Read a record from its file, with keys of its JSON changed by anyone who can write there."""
    value = json.loads(found.model_dump_json())
    for place, new in changes.items():
        target = value
        *parents, last = place.split("__")
        for each in parents:
            target = target[each]
        target[last] = new
    return parse_record(json.dumps(value), source="it")


def test_our_own_counts_and_survives_being_written_and_read() -> None:
    assert judged(reread(signed(verdict="verified"))) == Authenticity("authentic")
    assert judged(reread(signed())).counts


def test_what_nobody_signed_is_unsigned_whatever_it_says() -> None:
    """50 files of 28 bytes whose records say "verified" were enough to push a genuine backup out."""
    found = judged(record(verdict="verified"))
    assert (found.state, found.counts) == ("unsigned", False)
    assert "adopt" in found.reason
    assert judged(None).state == "unsigned"
    assert judged(record(installation="other")).state == "foreign"


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "b"}, {"content_accepted": True}, {"verification__verdict": "verified"}, {"verification__rows": 10**6},
        {"manifest__created_at": "2036-01-01T00:00:00Z"}, {"manifest__installation": "other"}, {"manifest__project": "other"},
        {"manifest__database__system_identifier": "8"}, {"manifest__origin__sequence": 9}, {"manifest__origin__previous": "x"},
        {"dismissed": True}, {"dated": "2026-01-01T00:00:00Z"}, {"invented_later": 1}, {"manifest__members": [{"name": "a", "bytes": 1, "sha256": "b"}]},
    ],
)  # fmt: skip
def test_any_change_of_a_signed_record_is_forged(changes: dict[str, Any]) -> None:
    """A re-hashed older manifest, a verdict, a date, a place in the chain."""
    assert judged(reread(signed(verdict="different"), **changes)).state == "forged"


def test_a_signature_by_another_key_is_foreign_and_by_a_trusted_one_ours() -> None:
    """Two hosts with the id `main` on one share."""
    other = signed(key=THEIRS)
    assert judged(other).state == "foreign"
    assert public_key(THEIRS) in judged(other).reason
    assert judged(other, Trust("main", public_key(OURS), (public_key(THEIRS),), "mail", "7")).counts
    # The origin's key and the record's: signing a stranger's backup anew makes it no better.
    assert judged(sign_record(signed(key=THEIRS), OURS)).state == "foreign"


def test_a_trusted_key_of_another_living_installation_is_foreign() -> None:
    """Trusted by mistake: neither its cluster nor its project is ours."""
    trust = Trust("main", public_key(OURS), (public_key(THEIRS),), "mail", "7")
    theirs = signed(key=THEIRS, project="second", database=database_facts(system_identifier="8"))
    moved = signed(key=THEIRS, database=database_facts(system_identifier="8"))
    assert judged(theirs, trust).state == "foreign"
    assert judged(moved, trust).counts
    assert "cluster 8" in judged(moved, trust).notes[0]


def test_a_new_cluster_and_a_renamed_project_are_told_and_refuse_nothing() -> None:
    found = judged(signed(project="renamed", database=database_facts(system_identifier="8")))
    assert found.counts
    assert len(found.notes) == 2


def test_an_older_archive_under_another_name_or_put_back_is_a_replay() -> None:
    first = signed(9)
    assert str(judged(first, name="mailarchiver-backup-20270101-000000")) == "replayed"
    assert not judged(first, name="mailarchiver-backup-20270101-000000").counts
    pruned = Trust("main", public_key(OURS), made={})
    assert str(judged(first, pruned)) == "replayed"
    made = Trust("main", public_key(OURS), made={first.manifest.name: manifest_digest(first.manifest)})
    assert judged(first, made).counts


def test_a_missing_link_is_seen() -> None:
    first = signed(9, sequence=1)
    second = signed(5, sequence=2, previous=manifest_digest(first.manifest))
    instead = signed(9, sequence=1, project="other")
    found = Authenticity("authentic")
    both = [first.manifest, second.manifest]
    assert with_chain(TRUST, places_of(both), second.manifest, found) == found
    # Removed by retention: nothing remembers it any more.
    assert with_chain(TRUST, places_of([second.manifest]), second.manifest, found) == found
    # Still remembered as made here, and gone.
    made = Trust("main", public_key(OURS), made={each.name: manifest_digest(each) for each in both})
    assert with_chain(made, places_of([second.manifest]), second.manifest, found).chain == "missing link"
    # Another one stands in its place.
    assert (
        with_chain(TRUST, places_of([instead.manifest, second.manifest]), second.manifest, found).chain
        == "missing link"
    )


def test_an_archive_without_a_record_is_judged_by_its_own_manifest() -> None:
    about = sign_manifest(manifest(), OURS, sequence=1, previous="")
    assert authenticity_of(TRUST, None, about).counts
    lying = parse_manifest(about.model_dump_json().replace('"project":"mail"', '"project":"evil"'), source="it")
    assert authenticity_of(TRUST, None, lying).state == "forged"
    assert authenticity_of(TRUST, None, manifest()).state == "unsigned"
    assert authenticity_of(TRUST, signed(), manifest(9)).state == "forged"


def test_a_file_of_another_size_is_not_what_was_signed() -> None:
    assert judged(signed(), file_bytes=28).state == "forged"
    assert judged(signed(), file_bytes=100).counts


def test_a_reader_that_knows_fewer_fields_sees_the_same_signature() -> None:
    """What a later version adds is kept and covered; what an older one lacked is empty."""
    later = Manifest.model_validate({**manifest().model_dump(), "added": {"later": 1}, "added_empty": None})
    about = sign_manifest(later, OURS, sequence=1, previous="")
    assert authenticity_of(TRUST, None, parse_manifest(about.model_dump_json(), source="it")).counts
    without = {key: value for key, value in json.loads(about.model_dump_json()).items() if key != "added_empty"}
    assert authenticity_of(TRUST, None, parse_manifest(json.dumps(without), source="it")).counts


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(value=json_values, other=json_values)
def test_a_signature_holds_for_its_value_its_purpose_and_its_key_alone(value: Any, other: Any) -> None:
    signature = sign(OURS, "record", value)
    assert holds(public_key(OURS), signature, "record", value)
    assert not holds(public_key(OURS), signature, "manifest", value)
    assert not holds(public_key(THEIRS), signature, "record", value)
    assert holds(public_key(OURS), signature, "record", other) == (canonical(value) == canonical(other))


@settings(max_examples=100, deadline=None)
@given(key=st.text(max_size=60), signature=st.text(max_size=90))
def test_no_text_as_key_or_signature_ends_otherwise_than_in_no(key: str, signature: str) -> None:
    assert not holds(key, signature, "record", {})
    assert not holds(public_key(OURS), signature, "record", {})
