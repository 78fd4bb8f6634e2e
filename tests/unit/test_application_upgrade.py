"""Which images of the application are refused, and what an upgrade of it must not lose."""

from __future__ import annotations

import pytest

from tasks.core.errors import Refused
from tasks.core.stack.application_upgrade import (
    VERSION_LABEL,
    changes,
    failed_migrations,
    losses,
    refuse_older_image,
    version_of,
    went_back,
)


@pytest.mark.parametrize(
    ("image", "label", "version"),
    [
        ("s1t5/mailarchiver:2609.1", "", "2609.1"),
        ("s1t5/mailarchiver:v2609.1-alpine@sha256:" + "a" * 64, "", "2609.1"),
        ("s1t5/mailarchiver:latest", "2609.2", "2609.2"),
        ("s1t5/mailarchiver:2609.1", "2609.2", "2609.2"),
        ("s1t5/mailarchiver:latest", "main", ""),
        ("s1t5/mailarchiver", "", ""),
        ("localhost:5000/mailarchiver", "", ""),
    ],
)
def test_the_version_of_an_image(image: str, label: str, version: str) -> None:
    assert version_of(image, {VERSION_LABEL: label}) == version


@pytest.mark.parametrize(("old", "new"), [("2609.1", "2608.9"), ("2609.10", "2609.9"), ("2609.1.1", "2609.1")])
def test_an_older_version_is_refused_with_the_way_back(old: str, new: str) -> None:
    with pytest.raises(Refused, match=f"is version {new}, older than {old}") as refused:
        refuse_older_image(old, new, image="s1t5/mailarchiver:x")

    assert "rollback" in refused.value.hint


@pytest.mark.parametrize(
    ("old", "new"), [("2609.1", "2609.1"), ("2609.1", "2610"), ("2609", "2609.0"), ("", "1"), ("9", "")]
)
def test_a_newer_version_and_one_that_is_not_known_are_taken(old: str, new: str) -> None:
    refuse_older_image(old, new, image="s1t5/mailarchiver:x")


def test_what_is_lost_and_what_came() -> None:
    before = {"ArchivedEmails": 10, "Users": 2, "MailAccounts": 1}

    assert losses(before, {"ArchivedEmails": 11, "Users": 2, "MailAccounts": 1}) == []
    assert losses(before, {"ArchivedEmails": 9, "MailAccounts": 1}) == [
        "9 rows in ArchivedEmails, 10 before",
        "table Users is gone",
    ]
    assert changes(before, {"ArchivedEmails": 11, "Users": 2, "MailAccounts": 1}) == [
        "11 rows in ArchivedEmails, 10 before"
    ]
    assert changes(before, before) == []


def test_a_failed_migration_is_found_in_the_log() -> None:
    """A migration may be named after an error: it is words that count."""
    log = [
        "info: applying migration 20260929120000_AddErrorColumn",
        "info: mail_failed_to_sync",
        "      An error occurred while migrating the database.",
        "migrations failed: relation does not exist",
    ]

    assert failed_migrations(log) == [each.strip() for each in log[2:]]
    assert failed_migrations(log[:2]) == []


def test_a_schema_version_only_grows() -> None:
    assert not went_back("20260818120000_A", "20260818120000_A")
    assert went_back("20260929120000_B", "20260818120000_A")
    assert not went_back(None, None)
