"""`doctor` and every restore tell how the containers differ from a compose file that was edited since, and show no secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tasks.adapters.stack.discovery import discover
from tasks.adapters.stack.drift import configuration_drift
from tests.cli import Operator
from tests.stack.stack import APPLICATION_SERVICE, POSTGRES_SERVICE, Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture
def file(small_stack: Stack) -> Iterator[Path]:
    """Lend the compose file to be edited; it is as before at the end."""
    place = small_stack.directory / "docker-compose.yml"
    before = place.read_text()
    yield place
    place.write_text(before)


def test_an_edited_compose_file_is_told(small_stack: Stack, file: Path, tmp_path: Path) -> None:
    """Image, environment by name alone, mounts, services that came and went; nothing for a stack as it was made."""
    operator = Operator(small_stack.directory, tmp_path / "backups")
    assert configuration_drift(discover(small_stack.directory)) == []
    operator.must("backup", "hot")

    model = yaml.safe_load(file.read_text())
    services = model["services"]
    environment = services[POSTGRES_SERVICE]["environment"]
    if isinstance(environment, list):
        environment.append("EXTRA_SECRET=hunter2")
    else:
        environment["EXTRA_SECRET"] = "hunter2"
    services[APPLICATION_SERVICE]["image"] = "s1t5/mailarchiver:2.0"
    services[APPLICATION_SERVICE].setdefault("volumes", []).append("./more:/more")
    services["another"] = {"image": "s1t5/mailarchiver"}
    file.write_text(yaml.safe_dump(model))
    seen = operator.run("doctor")
    restored = operator.must("restore", "latest", "--yes")

    told = [each["what"] for each in seen.value["problems"]]
    for where in (told, restored["notes"]):
        assert any("EXTRA_SECRET" in each and POSTGRES_SERVICE in each for each in where)
        assert any("the compose file says s1t5/mailarchiver:2.0" in each for each in where)
        assert any("/more" in each for each in where)
    assert "hunter2" not in str(seen) + str(restored["notes"])
    operator.must("commit", "--yes")


def test_an_edit_that_shows_nowhere_else_is_told_too(small_stack: Stack, file: Path) -> None:
    """By Compose's own digest of the service."""
    model = yaml.safe_load(file.read_text())
    model["services"][POSTGRES_SERVICE]["shm_size"] = "100mb"
    file.write_text(yaml.safe_dump(model))

    told = configuration_drift(discover(small_stack.directory))

    assert len(told) == 1
    assert POSTGRES_SERVICE in told[0]
    assert "another version" in told[0]
