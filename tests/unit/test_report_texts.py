"""Reports say what was compared, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.archive.manifest import Record, Verification
from tasks.core.report.texts import restored_content, verification_report
from tests.unit.values import NOW, record


def verification(**changes: Any) -> Verification:
    ordinary: dict[str, Any] = {
        "verdict": "verified", "at": NOW, "archive_sha256": "a", "rows": 1200, "tables": 3, "attachments": 7, "differences": [],
        "restore_seconds": 4.0, "seconds": 5.0,
    }  # fmt: skip
    return Verification.model_validate(ordinary | changes)


def test_a_full_restore_does_not_claim_rows() -> None:
    said = restored_content(["files", "attachments"])

    assert "rows were not counted" in said
    assert "0 rows" not in said
    assert "SHA-256" in said


def test_a_dump_restored_says_its_rows() -> None:
    assert restored_content(["census"], rows=1200, tables=3).startswith("1,200 rows in 3 tables")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({"compared": []}, "no census"),
        ({"compared": ["census"], "left_out": ["VIEW v"]}, "all but VIEW v"),
        ({"compared": [], "left_out": ["VIEW v"]}, "no census of the rest"),
        ({"compared": ["files"], "differences": ["table t has 1 rows"]}, "was not put in place"),
    ],
)
def test_what_was_not_compared_is_not_called_equal(content: dict[str, Any], wanted: str) -> None:
    said = restored_content(**content)

    assert wanted in said
    assert ("equal" in said) is ("census" in content["compared"])


def test_a_verification_of_files_names_files_alone() -> None:
    said = verification_report("b", verification(compared=["files", "B-trees and tables"]))

    assert "every file's SHA-256" in said
    assert "every definition" not in said
    assert "Attachments | not looked at" in said


def test_a_first_census_is_told_from_a_comparison() -> None:
    assert "for the first time" in verification_report("b", verification(compared=["files", "census recorded"]))
    assert "by an earlier verification" in verification_report("b", verification(compared=["files", "recorded census"]))


def test_a_verdict_of_nothing_compares_nothing() -> None:
    said = verification_report(
        "b", verification(verdict="failed", compared=[], rows=0, tables=0, differences=["cut short"])
    )

    assert "Compared | nothing" in said
    assert "not measured" in said
    assert "equal" not in said


def test_a_different_verdict_is_not_called_equal() -> None:
    said = verification_report(
        "b", verification(verdict="different", compared=["files", "recorded census"], differences=["t"])
    )

    assert "equal" not in said
    assert "recorded before" in said


def test_records_from_before_stay_readable() -> None:
    old = record(verdict="verified").model_dump(mode="json", exclude={"restored_census"})
    del old["verification"]["compared"]

    read = Record.model_validate(old)

    assert read.verified
    assert read.verification is not None
    assert "this record does not say" in verification_report("b", read.verification)
