"""The doctor: what stands in the way of backups is an error, what an operator should know is a warning, and a good stack has neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.stack.diagnosis import Problem, Seen, find_problems
from tasks.core.stack.installation import Mount
from tests.unit.values import installation, service


def problems_of(changes: dict[str, Any], **seen: Any) -> list[Problem]:
    """Look at an installation of which only this is wrong."""
    ordinary: dict[str, Any] = {
        "version_file": "17", "image_major": "17", "published": (), "other_users": (),
    }  # fmt: skip
    return find_problems(installation(**changes), Seen(**(ordinary | seen)))


def test_a_good_installation_has_no_problem() -> None:
    """Nothing is found where nothing is; what could not be read is no problem either."""
    assert problems_of({}) == []
    assert problems_of({}, version_file="") == []
    assert problems_of({}, image_major="") == []


@pytest.mark.parametrize(
    ("changes", "seen", "severity", "words"),
    [
        ({"postgres": service("postgres", state="exited")}, {}, "error", "PostgreSQL (service postgres) is exited"),
        ({"postgres": service("postgres", state="paused")}, {}, "error", "is paused"),
        ({"application": service("app", state="absent")}, {}, "warning", "the application (service app) is absent"),
        ({}, {"other_users": ["b", "a"]}, "error", "mounted by a, b too"),
        ({}, {"version_file": "15"}, "error", "the data is of PostgreSQL 15, the image is PostgreSQL 17"),
        ({}, {"compose_error": "line 3: oops"}, "warning", "line 3: oops"),
        ({}, {"configuration": ["app.env is missing"]}, "warning", "app.env is missing"),
        ({"keys_mount": None}, {}, "warning", "data-protection keys lie inside"),
        ({"data_mount": Mount("volume", "0123456789abcdef" * 4, "/x", None)}, {}, "warning", "anonymous volume"),
        ({}, {"published": ["0.0.0.0:5432"]}, "warning", "published at 0.0.0.0:5432"),
        (
            {"application": service("app", image="s1t5/mailarchiver:latest", image_digest=None)},
            {},
            "warning",
            "s1t5/mailarchiver:latest has no fixed version",
        ),
    ],
)
def test_each_problem_alone(changes: dict[str, Any], seen: dict[str, Any], severity: str, words: str) -> None:
    """One thing wrong is one problem, with what is wrong and something to try."""
    (found,) = problems_of(changes, **seen)

    assert found.severity == severity
    assert words in found.what
    assert found.hint


def test_what_is_no_problem() -> None:
    """A named volume, a directory with a long name, and a floating tag whose digest is known."""
    assert problems_of({"data_mount": Mount("volume", "mail_data", "/x", None)}) == []
    assert problems_of({"data_mount": Mount("volume", "x" * 64, "/x", None)}) == []
    assert problems_of({"data_mount": Mount("bind", "/" + "a" * 63, "/x", Path("/a"))}) == []
    assert problems_of({"application": service("app", image="s1t5/mailarchiver:latest", image_digest="sha256:a")}) == []


def test_what_stands_in_the_way_comes_first() -> None:
    """However many warnings there are."""
    found = problems_of({"keys_mount": None}, published=["a", "b"], other_users=["c"], version_file="15")

    assert [each.severity for each in found] == ["error", "error", "warning", "warning", "warning"]
