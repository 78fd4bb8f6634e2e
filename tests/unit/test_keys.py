"""What is wrong with copied keys is said; nothing where all is well."""

from __future__ import annotations

import pytest

from tasks.core.archive.manifest import Member
from tasks.core.stack.keys import keys_warnings

SHA = "0" * 64


@pytest.mark.parametrize(
    ("files", "left_out", "words"),
    [
        ({"key-1.xml": 900}, [], []),
        ({"key-1.xml": 900, "revocation-1.xml": 10}, [], []),
        ({}, [], ["there is no data-protection key: /keys holds nothing"]),
        ({"readme.txt": 5}, [], ["/keys holds 1 other files"]),
        ({"key-1.xml": 0}, [], ["key-1.xml is empty", "there is no data-protection key"]),
        ({"key-1.xml": 0, "key-2.xml": 900}, [], ["key-1.xml is empty"]),
        ({"key-1.xml": 900}, ["key-2.xml is no regular file"], ["key-2.xml is no regular file"]),
        ({"monkey-1.xml": 900}, [], ["there is no data-protection key"]),
    ],
)
def test_keys(files: dict[str, int], left_out: list[str], words: list[str]) -> None:
    """One warning for each thing that is wrong."""
    members = [Member(name=f"data-protection-keys/{name}", bytes=size, sha256=SHA) for name, size in files.items()]

    said = keys_warnings(members, left_out, place="/keys")

    assert len(said) == len(words)
    assert all(any(each in one for one in said) for each in words)
