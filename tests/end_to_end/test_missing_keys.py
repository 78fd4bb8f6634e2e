"""Keys that are missing, empty or unreadable are told with the backup, in the report and by an alarm; or the backup fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cli import Operator
from tests.stack.stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def problems(operator: Operator) -> list[str]:
    return [each["text"] for each in operator.run("status").value["problems"] if each["kind"] == "keys"]


@pytest.mark.skipif(os.geteuid() != 0, reason="the keys are another user's")
def test_a_backup_without_keys_says_so(small_stack: Stack, tmp_path: Path) -> None:
    """The mail is safe in it all the same, so the backup stands; the newest one with keys ends the alarm."""
    operator, keys, aside = (
        Operator(small_stack.directory, tmp_path / "backups"),
        small_stack.directory / "data-protection-keys",
        tmp_path / "aside",
    )
    assert operator.must("backup", "hot")["warnings"] == []
    assert problems(operator) == []
    shutil.copytree(keys, aside)
    name = next(keys.glob("key-*.xml")).name

    (keys / name).write_bytes(b"")
    said = operator.must("backup", "hot")["warnings"]
    assert any(f"{name} is empty" in each for each in said)
    for path in keys.glob("*.xml"):
        path.unlink()
    os.mkfifo(keys / "key-pipe.xml")
    said = operator.must("backup", "online")["warnings"]
    assert any("there is no data-protection key" in each and str(keys) in each for each in said)
    assert any("key-pipe.xml is no regular file" in each for each in said)
    assert len(problems(operator)) == 2
    (keys / "key-pipe.xml").unlink()
    keys.rmdir()
    gone = operator.run("backup", "hot")
    assert gone.code == 1 or any("there is no data-protection key" in each for each in gone.value["warnings"])
    if keys.exists():  # Docker makes what it is to mount
        keys.rmdir()
    keys.write_text("a file where the directory was")
    wrong = operator.run("backup", "hot")
    assert wrong.code == 1 or wrong.value["warnings"]
    assert "unexpected" not in gone.stderr + wrong.stderr
    keys.unlink()
    shutil.copytree(aside, keys)
    assert operator.must("backup", "hot")["warnings"] == []
    assert problems(operator) == []
