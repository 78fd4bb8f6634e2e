"""The deployments of prefect.yaml on a real server and worker, against a real stack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.prefect_server import (
    ROOT,
    PrefectServer,
    deploy_all,
    prefect_server,
    prefect_worker,
    start_run,
    wait_for_run,
)
from tests.stack.stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def server(small_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Lend a server with all deployments, one of them with a schedule that comes around every minute, and a worker."""
    place = tmp_path_factory.mktemp("prefect")
    settings = place / "settings.yaml"
    settings.write_text(
        yaml.safe_dump(
            {"installations": {"main": {"directory": str(small_stack.directory), "repository": str(place / "backups")}}}
        )
    )
    settings.chmod(0o600)
    with prefect_server(place, settings_file=settings, state=place / "state") as running:
        deploy_all(running)
        with prefect_worker(running, place):
            yield running


def test_a_run_through_the_api_completes_and_verification_follows_by_event(server: PrefectServer) -> None:
    """Issue 2, point 9: triggered through the API; the event of its end starts the verification."""
    run = wait_for_run(server, start_run(server, "hot-backup/hot-backup", {"installation": "main"}))

    assert (run["state"], run["name"]) == ("COMPLETED", "hot backup of main")
    verification = wait_for_run(server, lambda each: each["name"].startswith("verification of mailarchiver-backup-"))
    assert verification["state"] == "COMPLETED", verification["message"]


def test_the_scheduler_makes_a_run_by_itself(server: PrefectServer, tmp_path: Path) -> None:
    """Health proves nothing: with an unfit sqlalchemy the server starts and silently schedules nothing."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (online,) = [each for each in deployments["deployments"] if each["name"] == "online-backup"]
    online["schedules"] = [
        {
            "slug": "each-minute",
            "cron": "* * * * *",
            "timezone": "UTC",
            "active": True,
            "parameters": {"installation": "main"},
        }
    ]
    deployments["deployments"] = [online]
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump(deployments))
    before = datetime.now(UTC)
    server.run("--no-prompt", "deploy", "--all", "--prefect-file", str(file))

    run = wait_for_run(
        server, lambda each: each["auto"] and each["name"] == "online backup of main", timeout_seconds=150
    )

    assert run["state"] == "COMPLETED", run["message"]
    assert before < datetime.now(UTC)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"installation": "main", "backup": "latest", "confirm": "yes"}, "was not confirmed"),
        ({"installation": "main", "backup": "../../etc/passwd", "confirm": "main"}, "is a path"),
        (
            {"installation": "elsewhere", "backup": "latest", "confirm": "elsewhere"},
            "there is no installation 'elsewhere'",
        ),
    ],
)
def test_a_restore_that_may_not_be_is_refused_with_a_reason(
    server: PrefectServer, small_stack: Stack, parameters: dict[str, str], reason: str
) -> None:
    """Whoever reaches the API can neither name a file nor skip the confirmation."""
    before = small_stack.states()

    run = wait_for_run(server, start_run(server, "sql-dump-restore/sql-dump-restore", parameters))

    assert run["state"] == "FAILED"
    assert reason in run["message"]
    assert small_stack.states() == before


def test_no_password_reaches_prefect(server: PrefectServer, small_stack: Stack) -> None:
    """P12: neither parameters, nor results, nor logs, nor artifacts hold the database's password."""
    password = small_stack.password.encode()
    holding = [path.name for path in server.home.rglob("*") if path.is_file() and password in path.read_bytes()]

    assert holding == []
