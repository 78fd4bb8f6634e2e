"""P1 under Prefect: worker, flow and server killed, runs cancelled, with the services stopped; nothing depends on Prefect's health.

`MAILARCHIVER_BACKUP_OUTAGE_SECONDS=600` makes the server's outage a long one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tasks.adapters.archive.repository_marker import MARKER_NAME
from tests.prefect_server import (
    PrefectServer,
    deploy_installations,
    kill_group,
    prefect_server,
    prefect_worker,
    set_cancelling,
    start_run,
    wait_for_run,
)
from tests.receiver import Receiver, receiver
from tests.settings import write_settings
from tests.stack.stack import APPLICATION_SERVICE, Stack, create_stack, wait_until

OUTAGE_SECONDS = float(os.environ.get("MAILARCHIVER_BACKUP_OUTAGE_SECONDS", "15"))
DEPLOYMENT = "complete-backup/complete-backup"
PROMISED_SECONDS = 60.0

pytestmark = [pytest.mark.docker, pytest.mark.timeout(500 + 3 * int(OUTAGE_SECONDS))]


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("prefect dies") / "stack", megabytes=30)
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def heard() -> Iterator[Receiver]:
    """Lend the ears of those who are told."""
    with receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def server(stack: Stack, heard: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    place = tmp_path_factory.mktemp("prefect")
    installation = {
        "directory": stack.directory, "repository": place / "backups", "notifications": heard.settings(events=["failure", "recovery"]),
        # That it follows is shown by test_prefect_deployments.py.
        "verification": {"when": "never"},
    }  # fmt: skip
    settings = write_settings(place / "settings.yaml", {"main": installation})
    with prefect_server(place, settings_file=settings, state=place / "state") as running:
        deploy_installations(running)
        yield running


@pytest.fixture
def begun(stack: Stack, server: PrefectServer) -> Iterator[Begun]:
    """Lend a complete backup, asked for through the API, at the moment when the stack is down for it."""
    with prefect_worker(server, server.place) as worker:
        running = service_states(stack)
        run = start_run(server, DEPLOYMENT, {"installation": "main"})
        wait_until(lambda: service_states(stack)[APPLICATION_SERVICE] != "running", 120, "the stack was not stopped")
        yield Begun(run, worker, running)


class Begun:
    """A run with its worker, and how the services were before it."""

    def __init__(self, run: str, worker: subprocess.Popen[bytes], running: dict[str, str]) -> None:
        self.run, self.worker, self.running = run, worker, running


# Each run begins when the one of the test before has ended badly: the queue and the lock are free, or it would not begin. Those of
# which a test says that they complete are the next runs of what came before: after a crash, after a cancellation, after a dead worker.


def test_a_killed_flow_gives_its_services_back_and_the_next_run_its_turn(
    stack: Stack, server: PrefectServer, begun: Begun, heard: Receiver
) -> None:
    """The watchdog acts, though worker and server know nothing yet, and tells of it; of the crash the server's automation tells (P18)."""
    heard.arrived.clear()
    kill_flows(server)

    assert_stack_as_before(stack, begun)
    assert wait_for_run(server, begun.run)["state"] == "CRASHED"
    wanted = {"mailarchiver-backup: complete-backup of main is Crashed", "mailarchiver-backup: a run of main had died"}
    wait_until(lambda: wanted <= set(heard.titles()), 60, "people were not told of the crash")
    assert "fail" in heard.pings()
    assert_next_run_is_green(stack, server)


def test_a_cancelled_run_gives_its_services_back(stack: Stack, server: PrefectServer, begun: Begun) -> None:
    """What the Cancel button asks for."""
    set_cancelling(server, begun.run)

    assert_stack_as_before(stack, begun)
    assert wait_for_run(server, begun.run)["state"] == "CANCELLED"


def test_a_killed_worker_takes_nothing_down_with_it(stack: Stack, server: PrefectServer, begun: Begun) -> None:
    """The flow's process, the first after a cancelled run, ends its work without its worker; the next worker takes the next run."""
    os.kill(begun.worker.pid, signal.SIGKILL)
    begun.worker.wait(15)

    assert_stack_as_before(stack, begun)
    assert wait_for_run(server, begun.run)["state"] == "COMPLETED"


@pytest.mark.long
def test_worker_and_flow_killed_together(stack: Stack, server: PrefectServer, begun: Begun, heard: Receiver) -> None:
    """Only the watchdog is left, and it is enough; once the server has missed the run's heartbeats it says so, and the queue is free."""
    heard.arrived.clear()
    kill_group(begun.worker)
    kill_flows(server)

    assert_stack_as_before(stack, begun)
    assert wait_for_run(server, begun.run, timeout_seconds=240)["state"] == "CRASHED"
    told = "mailarchiver-backup: complete-backup of main is Crashed"
    wait_until(lambda: told in heard.titles(), 60, "people were not told of the crash")
    with prefect_worker(server, server.place):
        assert_next_run_is_green(stack, server)


def test_a_backup_outlives_its_server(stack: Stack, server: PrefectServer, begun: Begun) -> None:
    """The server is away while the stack is down; no run is doubled, the backup is complete, and the next one has its turn."""
    before = archives(server)
    server.kill()
    died = time.monotonic()

    assert_stack_as_before(stack, begun)
    wait_until(lambda: archives(server) - before, 120, "the backup was not finished without its server")
    time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - died)))
    server.start()

    # A worker gives up during a long outage; what keeps it running starts it again.
    with prefect_worker(server, server.place):
        # The run says so itself, unless the automation that misses its heartbeats was quicker; history and report know better.
        ended = wait_for_run(server, begun.run, timeout_seconds=240 + 2 * OUTAGE_SECONDS)
        assert ended["state"] in ("COMPLETED", "CRASHED"), ended["message"]
        assert len(archives(server) - before) == 1
        assert_next_run_is_green(stack, server)


@pytest.mark.long
def test_a_run_whose_death_nobody_saw_is_closed_by_the_watch(stack: Stack, server: PrefectServer, begun: Begun) -> None:
    """Flow, worker and server die together; the next watch closes the run, and its place in the queue is free."""
    kill_group(begun.worker)
    kill_flows(server)
    server.kill()
    assert_stack_as_before(stack, begun)
    server.start()
    time.sleep(65)  # a run that changed its state a moment ago is left alone
    with prefect_worker(server, server.place):
        wait_for_run(server, start_run(server, "watch/watch", {"installation": "main"}))
        assert wait_for_run(server, begun.run)["state"] == "CRASHED"
        assert_next_run_is_green(stack, server)


def assert_stack_as_before(stack: Stack, begun: Begun) -> None:
    wait_until(lambda: service_states(stack) == begun.running, PROMISED_SECONDS, "the stack is not as it was")
    stack.wait_app()


def assert_next_run_is_green(stack: Stack, server: PrefectServer) -> None:
    """The concurrency slot is free, the lock is free, and nothing of the run before is in the way."""
    run = wait_for_run(server, start_run(server, DEPLOYMENT, {"installation": "main"}), timeout_seconds=240)
    assert run["state"] == "COMPLETED", run["message"]
    stack.wait_app()
    repository = server.place / "backups"
    assert [
        path.name
        for path in repository.iterdir()
        if ".partial" in path.name or (path.name[0] == "." and path.name != MARKER_NAME)
    ] == []
    for archive in archives(server):
        assert (repository / archive.replace(".tar.gz", ".manifest.json")).exists()


def service_states(stack: Stack) -> dict[str, str]:
    return {service: state for service, (_, state, _) in stack.states().items()}


def archives(server: PrefectServer) -> set[str]:
    return {path.name for path in (server.place / "backups").glob("*.tar.gz")}


def kill_flows(server: PrefectServer) -> None:
    """Kill the processes of this server's flow runs, and what they started; not their watchdogs."""
    ours = f"MAILARCHIVER_BACKUP_STATE={server.environment['MAILARCHIVER_BACKUP_STATE']}".encode()
    killed = 0
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            environment = (place / "environ").read_bytes()
            is_flow = b"PREFECT__FLOW_RUN_ID=" in environment and ours in environment.split(b"\0")
            if is_flow and b"tasks.watchdog" not in words:
                os.kill(int(place.name), signal.SIGKILL)
                killed += 1
    assert killed
