"""Unfit archives (P17) are refused before anything is touched, and fit ones are not."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.errors import Refused
from tasks.core.stack.compatibility import Platform, missing_roles, refuse_unfit_copy, refuse_unfit_dump
from tests.unit.values import database_facts, manifest

OLD, NEW = "20250101000000_First", "20260101000000_Newest"
GLIBC = Platform(17, "gnu", "2.36", "x86_64")


@pytest.mark.parametrize(
    ("backup_major", "server_major", "backup_head", "server_head", "same_application", "words"),
    [
        (17, 17, OLD, OLD, False, ""),
        (15, 17, OLD, NEW, False, ""),
        (17, 15, OLD, OLD, True, "PostgreSQL 17; this server is PostgreSQL 15"),
        (17, 17, NEW, OLD, False, f"schema version {NEW}, newer than the installation's {OLD}"),
        (17, 17, NEW, OLD, True, ""),
        (17, 17, None, OLD, False, ""),
        (17, 17, NEW, None, False, ""),
    ],
)
def test_dumps(
    backup_major: int, server_major: int, backup_head: str | None, server_head: str | None, same_application: bool, words: str
) -> None:  # fmt: skip
    """Upgrading PostgreSQL or the application is fine; the other direction is refused, with the image to use."""
    backup = manifest(database=database_facts(server_major=backup_major, migration_head=backup_head))

    def attempt() -> None:
        refuse_unfit_dump(
            backup, target_major=server_major, target_migration_head=server_head, same_application=same_application
        )

    if not words:
        attempt()
    else:
        with pytest.raises(Refused) as caught:
            attempt()
        assert words in caught.value.message
        assert caught.value.hint


def test_a_dump_of_which_nothing_is_known_is_not_refused() -> None:
    """A legacy archive has no manifest; what it needs shows when it is loaded beside the current data."""
    refuse_unfit_dump(None, target_major=9, target_migration_head=OLD, same_application=False)


def test_a_manifest_without_images_is_refused_in_words() -> None:
    """Anybody may have written the manifest: what it leaves out is no reason to stumble."""
    bare = manifest(images=[])

    with pytest.raises(Refused, match="newer than the installation's"):
        refuse_unfit_dump(bare, target_major=17, target_migration_head=OLD, same_application=False)
    with pytest.raises(Refused, match="libc"):
        refuse_unfit_copy(bare, "17", Platform(17, "musl", "", "x86_64"), archive_name="b")


@pytest.mark.parametrize(
    ("facts", "version_file", "target", "words"),
    [
        ({}, "17", GLIBC, ""),
        ({}, "16", GLIBC, "holds data of PostgreSQL 16; the installation's image is PostgreSQL 17"),
        ({}, "", GLIBC, "holds data of PostgreSQL"),
        ({}, "17", Platform(17, "musl", "", "x86_64"), "libc gnu"),
        ({}, "17", Platform(17, "gnu", "2.41", "x86_64"), "collation version 2.36"),
        ({}, "17", Platform(17, "gnu", "2.36", "aarch64"), "architecture x86_64"),
        ({}, "17", Platform(17, "gnu", "", ""), ""),
        ({"collation": "C"}, "17", Platform(17, "gnu", "2.41", "x86_64"), ""),
        ({"locale_provider": "icu"}, "17", Platform(17, "gnu", "2.41", "x86_64"), ""),
        ({"collation": "C"}, "17", Platform(17, "musl", "", "x86_64"), "libc gnu"),
        ({"libc": "", "architecture": "", "collation_version": None}, "17", GLIBC, ""),
    ],
)
def test_copies_of_a_data_directory(facts: dict[str, Any], version_file: str, target: Platform, words: str) -> None:
    """Another libc or collation version sorts text differently, and indexes would silently miss rows."""
    backup = manifest(database=database_facts(**facts))
    if not words:
        refuse_unfit_copy(backup, version_file, target, archive_name="b.tar.gz")
    else:
        with pytest.raises(Refused) as caught:
            refuse_unfit_copy(backup, version_file, target, archive_name="b.tar.gz")
        assert words in caught.value.message
        assert caught.value.hint


def test_a_copy_of_which_nothing_is_known_shows_its_major_at_least() -> None:
    """PG_VERSION lies in the data itself."""
    refuse_unfit_copy(None, "17", GLIBC, archive_name="b.tar.gz")
    with pytest.raises(Refused):
        refuse_unfit_copy(None, "15", GLIBC, archive_name="b.tar.gz")


def test_missing_roles_are_named_in_order() -> None:
    """The server's own further roles are nobody's business."""
    facts = database_facts(roles=["reader", "Mail User", "mailuser"])

    assert missing_roles(facts, ["mailuser", "postgres"]) == ["Mail User", "reader"]
    assert missing_roles(facts, ["mailuser", "reader", "Mail User"]) == []
