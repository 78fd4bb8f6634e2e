"""P1 when Docker itself goes away: its engine restarted or killed while the stack is down for a complete backup or a full restore.

`pytest -m "long or not long" tests/end_to_end/test_engine_restarts.py` tries every restart policy.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.adapters.archive.repository_marker import MARKER_NAME
from tests.cli import Operator
from tests.content import content
from tests.stack.images import POSTGRES, application_image
from tests.stack.private_engine import PrivateEngine, private_engine
from tests.stack.stack import APPLICATION_SERVICE, Stack, create_stack, wait_until

PROMISED_SECONDS = 60.0

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="starts a Docker engine in a network of its own: needs root"),
]


@pytest.fixture(scope="module")
def engine(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    with private_engine(tmp_path_factory.mktemp("engine") / "e", POSTGRES, application_image()) as lent:
        yield lent


@pytest.fixture(scope="module")
def stack(engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("engine restarts") / "stack", megabytes=30)
    yield made
    made.destroy()


@pytest.mark.parametrize(
    ("policy", "how"),
    [
        pytest.param("always", signal.SIGKILL, id="always, killed"),
        pytest.param("no", signal.SIGTERM, id="no, restarted"),
        pytest.param("always", signal.SIGTERM, id="always, restarted", marks=pytest.mark.long),
        pytest.param("unless-stopped", signal.SIGTERM, id="unless-stopped, restarted", marks=pytest.mark.long),
        pytest.param("unless-stopped", signal.SIGKILL, id="unless-stopped, killed", marks=pytest.mark.long),
        pytest.param("no", signal.SIGKILL, id="no, killed", marks=pytest.mark.long),
    ],
)
def test_a_complete_backup_meets_an_engine_that_goes_away(
    stack: Stack, engine: PrivateEngine, tmp_path: Path, policy: str, how: signal.Signals
) -> None:
    """What ran runs again, whatever the engine starts by itself; what has a final name is whole; the next run is green."""
    use_policy(stack, policy)
    operator = Operator(stack.directory, tmp_path / "backups")
    running = service_states(stack)

    backup = operator.start("backup", "complete", "--way", "stream")
    wait_until(lambda: service_states(stack)[APPLICATION_SERVICE] != "running", 60, "the stack was not stopped")
    engine.end(how)
    wait_until(engine.is_away, 30, "the engine still answers")
    engine.start()
    begun = time.monotonic()
    code = backup.wait(300)

    wait_until(lambda: service_states(stack) == running, PROMISED_SECONDS, "the stack is not as it was")
    assert time.monotonic() - begun < PROMISED_SECONDS
    stack.wait_app()
    finished = list(operator.repository.glob("*.tar.gz"))
    assert bool(finished) == (code == 0)
    operator.must("backup", "complete")
    assert operator.must("verify", "latest")["verdict"] == "verified"
    for archive in finished:
        assert operator.must("verify", json_name(archive))["verdict"] == "verified"
    assert [
        path.name for path in operator.repository.iterdir() if ".partial" in path.name or path.name.startswith(".")
    ] == [MARKER_NAME]


@pytest.mark.parametrize("policy", ["always", pytest.param("no", marks=pytest.mark.long)])
def test_a_full_restore_meets_an_engine_that_goes_away(
    stack: Stack, engine: PrivateEngine, tmp_path: Path, policy: str
) -> None:
    """The data is the old or the new, and runs again after one command at most."""
    use_policy(stack, policy)
    operator = Operator(stack.directory, tmp_path / "backups")
    operator.must("backup", "complete")
    new = content(stack)
    stack.psql(
        'UPDATE mail_archiver."ArchivedEmails" SET "Subject" = "Subject" || %s WHERE "Id" %% 5 = 0',
        (f" {tmp_path.name}",),
    )
    old = content(stack)
    assert old != new
    running = service_states(stack)

    restore = operator.start("restore", "latest", "--yes", "--no-quarantine")
    wait_until(lambda: service_states(stack)[APPLICATION_SERVICE] != "running", 120, "the stack was not stopped")
    engine.end(signal.SIGKILL)
    wait_until(engine.is_away, 30, "the engine still answers")
    engine.start()
    restore.wait(300)

    operator.must("recover")
    wait_until(lambda: service_states(stack) == running, PROMISED_SECONDS, "the stack is not as it was")
    stack.wait_app()
    assert content(stack) in (old, new)
    operator.must("commit", "--yes")
    operator.must("backup", "complete")


def use_policy(stack: Stack, policy: str) -> None:
    """Give both services a restart policy, and wait until they run with it."""
    file = stack.directory / "docker-compose.yml"
    lines = [
        f"    restart: '{policy}'" if line.strip().startswith("restart:") else line
        for line in file.read_text().splitlines()
    ]
    file.write_text("\n".join(lines) + "\n")
    stack.compose("up", "--detach", "--no-build")
    stack.wait_app()


def service_states(stack: Stack) -> dict[str, str]:
    return {service: state for service, (_, state, _) in stack.states().items()}


def json_name(archive: Path) -> str:
    found: str = json.loads(archive.with_name(archive.name.replace(".tar.gz", ".manifest.json")).read_text())[
        "manifest"
    ]["name"]
    return found
