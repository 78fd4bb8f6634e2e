"""Verified whole copies: their rows are counted, recorded once, and compared ever after; a failed verdict stands as failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.adapters.archive.archive_source import record_path_of
from tests.cli import Operator
from tests.stack.stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]


def test_a_row_that_changed_since_the_first_verification_is_named(
    make_stack: Callable[..., Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup of an updated row, sealed as well as any, does not pass under the census of the one before."""
    monkeypatch.setenv("MAILARCHIVER_BACKUP_STATE", str(tmp_path / "state"))
    stack = make_stack()
    operator = Operator(stack.directory, tmp_path / "backups")
    censuses = {}
    for method in ("complete", "online"):
        made = operator.must("backup", method)
        verdict = operator.must("verify", made["name"])
        assert "census recorded" in verdict["compared"]
        assert "files" in verdict["compared"]
        assert ("base backup" in verdict["compared"]) is (method == "online")
        assert any(("shut down" if method == "complete" else "backup's end") in note for note in verdict["notes"])
        censuses[method] = json.loads(record_path_of(Path(made["archive"])).read_text())["restored_census"]
        assert censuses[method]["archive_sha256"] == made["sha256"]
    # Nothing was written in between, so both hold the same.
    assert censuses["complete"]["census"]["tables"] == censuses["online"]["census"]["tables"]
    again = operator.must("verify", made["name"])
    assert "recorded census" in again["compared"]

    stack.psql(
        'UPDATE mail_archiver."MailAccounts" SET "Name" = \'another\' WHERE "Id" = (SELECT min("Id") FROM mail_archiver."MailAccounts")'
    )
    other = operator.must("backup", "online")
    path = record_path_of(Path(other["archive"]))
    record = json.loads(path.read_text())
    record["restored_census"] = {**censuses["online"], "archive_sha256": other["sha256"]}
    path.write_text(json.dumps(record))

    answer = operator.run("verify", other["name"])

    assert (answer.code, answer.value["verdict"]) == (1, "different")
    assert any("MailAccounts" in line for line in answer.value["differences"])
    lines = (tmp_path / "state" / "history").glob("*.jsonl")
    last = json.loads(next(lines).read_text().splitlines()[-1])
    assert (last["run"], last["outcome"]) == ("verification", "failed")
    assert "MailAccounts" in last["message"]
