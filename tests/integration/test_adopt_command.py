"""`adopt` and `adopt --dismiss` as an operator calls them: what is rightly there counts afterwards, and nothing else does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.run.config import InstallationConfig
from tests.cli import Answer, Operator
from tests.integration.archives import installation_in
from tests.integration.test_authentic_repository import FIRST, back_up, forge


@pytest.fixture
def config(tmp_path: Path) -> InstallationConfig:
    return installation_in(tmp_path)


def run(config: InstallationConfig, *words: str) -> Answer:
    return Operator(config.directory, config.repository).run(*words, "--installation", "main")


def listed(config: InstallationConfig) -> dict[str, str]:
    answer = run(config, "list")
    assert answer.code == 0, answer
    return {each["name"]: each["authenticity"] for each in answer.value}


def done(answer: Answer) -> dict[str, Any]:
    assert isinstance(answer.value, list), answer
    return {each["backup"]: each["refused"] for each in answer.value}


def test_unsigned_ones_are_adopted_and_others_are_not(config: InstallationConfig) -> None:
    old = [back_up(config, FIRST + timedelta(days=night), signed=False).manifest.name for night in range(2)]
    assert set(listed(config).values()) == {"unsigned"}
    refused = run(config, "adopt")
    assert (refused.code, set(listed(config).values())) == (2, {"unsigned"}), "nobody has confirmed it"

    answer = run(config, "adopt", "--yes")
    assert answer.code == 0
    assert done(answer) == dict.fromkeys(old, False)
    assert listed(config) == dict.fromkeys(old, "authentic")

    genuine = back_up(config, FIRST + timedelta(days=9))
    at = FIRST + timedelta(days=10)
    forged = forge(config, genuine, at).name.removesuffix(".tar.gz")
    foreign = forge(config, genuine, at, installation="other", origin=None).name.removesuffix(".tar.gz")
    before = listed(config)
    assert (before[forged], before[foreign]) == ("forged", "forged")
    answer = run(config, "adopt", forged, foreign, "--yes")
    assert answer.code == 1
    assert done(answer) == {forged: True, foreign: True}
    assert listed(config) == before
    assert run(config, "adopt", "--yes").value == [], "nothing that is not named, and dated after the first signature"
    assert run(config, "adopt", "mailarchiver-backup-20250101-000000", "--yes").code == 2


def test_another_installations_archive_is_not_adopted(config: InstallationConfig, tmp_path: Path) -> None:
    """Neither with a signature of its own nor without one; no matter who wrote the record."""
    other = InstallationConfig("other", config.settings.model_copy(update={"directory": tmp_path / "elsewhere"}))
    other.directory.mkdir()
    names = [back_up(other, FIRST + timedelta(days=night), signed=night == 0).manifest.name for night in range(2)]
    mine = back_up(config, FIRST + timedelta(days=5)).manifest.name
    states = listed(config)
    assert states[mine] == "authentic"
    assert states[names[0]] == "foreign"

    answer = run(config, "adopt", names[0], "--yes")
    assert (answer.code, done(answer)) == (1, {names[0]: True})
    assert "foreign" in answer.value[0]["done"]
    assert listed(config) == states


def test_what_a_wrong_clock_dated_is_adopted_or_dismissed(config: InstallationConfig) -> None:
    past = back_up(config, FIRST)
    ahead = back_up(config, datetime.now(UTC) + timedelta(days=3650))
    name = ahead.manifest.name

    assert run(config, "adopt", "--dismiss", "--yes").code == 2, "which one?"
    answer = run(config, "adopt", name, "--yes")
    assert answer.code == 0
    assert (
        f"counts as of {past.manifest.created_at + timedelta(seconds=1):%Y-%m-%d %H:%M:%S}" in answer.value[0]["done"]
    )

    answer = run(config, "adopt", "--dismiss", name, "--yes")
    assert answer.code == 0
    assert "counts for nothing" in answer.value[0]["done"]
    assert listed(config)[name] == "authentic"
    assert {path.name for path in config.repository.glob("*.tar.gz")} == {past.file, ahead.file}

    forged = forge(config, past, FIRST + timedelta(days=1)).name.removesuffix(".tar.gz")
    answer = run(config, "adopt", "--dismiss", forged, "--yes")
    assert answer.code == 1
    assert "does not count anyway" in answer.value["error"]
