"""The manifest and the record: a format for strangers, read as if a stranger had written it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tasks.core.archive.manifest import CHAINED_VERSION, is_older_than, parse_manifest, parse_record
from tasks.core.errors import ArchiveDamaged
from tests.unit.values import NOW, manifest, record


def altered(text: str, **changes: Any) -> str:
    """Change keys of a JSON object; None takes one out."""
    return json.dumps({key: value for key, value in (json.loads(text) | changes).items() if value is not None})


def test_what_was_written_is_read() -> None:
    """Every field comes back."""
    about = manifest(downtime_seconds=1.5, compose_files=["docker-compose.yml"])
    beside = record(verdict="different", content_accepted=True)

    assert parse_manifest(about.model_dump_json(), source="it") == about
    assert parse_record(beside.model_dump_json(indent=2).encode(), source="it") == beside


def test_a_later_versions_additions_are_passed_over_and_written_again() -> None:
    """Additions need no new version of the format, in the manifest and below; they stay, for signatures cover them."""
    about = manifest()
    text = altered(about.model_dump_json(), new_idea={"a": 1})
    text = altered(text, database=json.loads(text)["database"] | {"new": 1})

    read = parse_manifest(text, source="it")
    assert read.database.system_identifier == about.database.system_identifier
    assert json.loads(read.model_dump_json()) == json.loads(about.model_dump_json()) | {
        "new_idea": {"a": 1},
        "database": json.loads(text)["database"],
    }


@pytest.mark.parametrize("left_out", ["downtime_seconds", "program_version", "superuser", "compose_files", "census"])
def test_an_older_versions_manifest_is_read(left_out: str) -> None:
    """What was added later has a value that means: not known."""
    about = manifest()
    text = json.dumps({key: value for key, value in json.loads(about.model_dump_json()).items() if key != left_out})

    assert parse_manifest(text, source="it") == about


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": None}, "name"),
        ({"method": "magic"}, "method"),
        ({"created_at": "2026-06-30T12:00:00"}, "created_at"),
        ({"created_at": "yesterday"}, "created_at"),
        ({"members": [{"name": "a", "bytes": -1, "sha256": "b"}]}, "members.0.bytes"),
        ({"database": {}}, "database.name"),
        ({"version": "many"}, "version"),
    ],
)
def test_a_manifest_that_is_none_is_damage_and_says_where(changes: dict[str, Any], words: str) -> None:
    """A moment without a zone is none: a backup's age must not depend on who reads it (P16)."""
    with pytest.raises(ArchiveDamaged, match=rf"^b\.tar\.gz is not a manifest: {words}"):
        parse_manifest(altered(manifest().model_dump_json(), **changes), source="b.tar.gz")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"3", b"[" * 100_000])
def test_other_bytes_are_neither_a_manifest_nor_a_record(text: bytes) -> None:
    """Cut short, of another kind, or made to hurt."""
    with pytest.raises(ArchiveDamaged):
        parse_manifest(text, source="it")
    with pytest.raises(ArchiveDamaged):
        parse_record(text, source="it")


def test_a_manifest_of_a_version_to_come_is_refused_with_the_way_out() -> None:
    """An old reader would misunderstand it."""
    with pytest.raises(ArchiveDamaged) as caught:
        parse_manifest(altered(manifest().model_dump_json(), version=CHAINED_VERSION + 1), source="it")

    assert f"manifest version {CHAINED_VERSION + 1}" in caught.value.message
    assert "update" in caught.value.hint


def test_a_verdict_counts_for_these_very_bytes_only() -> None:
    """P5: bound to the archive's SHA-256; every other verdict is none."""
    assert record(verdict="verified").verified
    assert not record(verdict="verified", verified_sha="of other bytes").verified
    assert not record(verdict="different").verified
    assert not record(verdict="failed").verified
    assert not record(verdict="legacy").verified
    assert not record().verified


def test_ages_are_measured_in_hours_whatever_the_sign() -> None:
    """A moment that lies ahead is not old; one of exactly the limit is not older."""
    assert is_older_than(NOW - timedelta(hours=25), NOW, hours=24)
    assert not is_older_than(NOW - timedelta(hours=24), NOW, hours=24)
    assert not is_older_than(NOW + timedelta(hours=30), NOW, hours=24)
