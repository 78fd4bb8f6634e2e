"""P1 and P15: whatever kills the borrower, the services get their former state back.

`MAILARCHIVER_BACKUP_KILLS=200` makes a campaign of the random kills; 2 by default.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from tasks.adapters.engine import client as engine_client
from tasks.adapters.engine import containers
from tasks.adapters.host import state
from tasks.adapters.host.journals import list_journals
from tasks.adapters.host.locks import installation_lock
from tasks.core.errors import BackupError, Busy, Refused
from tasks.core.stack.installation import Database, Installation, Mount, Service
from tasks.recovery import recover
from tasks.recovery.stopped_services import stopped
from tests.stack.images import POSTGRES, ensure_images
from tests.stack.stack import Stack, content

pytestmark = pytest.mark.docker

KILLS = int(os.environ.get("MAILARCHIVER_BACKUP_KILLS", "2"))
QUIET = ["sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 0.1; done"]
PROMISED_SECONDS = 60.0

BORROWER = """
import sys, time
from pathlib import Path
from tests.integration.test_never_left_down import installation_of
from tasks.adapters.host.locks import installation_lock
from tasks.recovery.recover import recover
from tasks.recovery.stopped_services import stopped
names, directory, seconds = sys.argv[1].split(","), Path(sys.argv[2]), float(sys.argv[3])
print("begin", flush=True)
with installation_lock(directory, "a test"):
    recover(directory)
    stack = installation_of(directory, names)
    with stopped(stack, stack.services, reason="a test", other_stop_seconds=5):
        print("stopped", flush=True)
        time.sleep(seconds)
print("done", flush=True)
"""


def installation_of(directory: Path, names: list[str]) -> Installation:
    """Describe containers as an installation, in start order; the first plays the server, the last the application."""
    services = []
    for name in names:
        found = containers.container(name)
        services.append(
            Service(
                name=name.removesuffix("-1").rpartition("-")[2],
                container_id=found.id if found else "",
                container_name=name,
                state=found.state if found else "absent",
                image=POSTGRES,
                image_id="",
                image_digest=None,
                restart_policy="always",
                environment={},
                mounts=(),
                addresses=(),
            )
        )
    return Installation(
        id="test",
        directory=directory,
        project="test",
        compose_files=(),
        application=services[-1],
        postgres=services[0],
        services=tuple(services),
        database=Database("db", "user", "", "user", ""),
        pgdata="/data",
        data_mount=Mount("bind", "/data", "/data", None),
        keys_mount=None,
        config_files=(),
    )


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep journals and logs out of the machine's state directory."""
    monkeypatch.setenv(state.STATE_VARIABLE, str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Make the installation's directory."""
    place = tmp_path / "installation"
    place.mkdir()
    return place


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Talk to Docker directly, beside the code under test; skip where there is none."""
    found = docker.from_env()
    try:
        found.ping()
    except docker.errors.DockerException as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Docker engine: {error}")
    ensure_images()
    yield found
    found.close()


@pytest.fixture
def names(client: Any) -> Iterator[list[str]]:
    """Run a server, a cache and an application, in this start order; they stop quickly and have `restart: always`."""
    prefix = f"never-left-down-{os.getpid()}-{random.randrange(10**6)}"
    made = [f"{prefix}-{service}" for service in ("postgres", "cache", "app")]
    for name in made:
        client.containers.run(
            POSTGRES, entrypoint=QUIET, name=name, detach=True, network_mode="none", restart_policy={"Name": "always"}
        )
    yield made
    for name in made:
        with suppress(docker.errors.NotFound):
            client.containers.get(name).remove(force=True)


def states(names: list[str]) -> list[str]:
    """Ask Docker for the containers' states."""
    return [found.state if (found := containers.container(name)) else "absent" for name in names]


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> float:
    """Poll until the condition holds and tell how long that took; fail after so many seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def borrow(names: list[str], directory: Path, *, seconds: float = 300) -> subprocess.Popen[str]:
    """Start a process that borrows all services."""
    command = [sys.executable, "-c", BORROWER, ",".join(names), str(directory), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def read_until(process: subprocess.Popen[str], word: str) -> None:
    """Wait for a line of the borrower."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"the borrower ended with {process.wait()} before it said {word}")


def watchdogs(own_state: Path) -> list[int]:
    """List the watchdogs of this test by their command line."""
    found = []
    for place in Path("/proc").iterdir():
        with suppress(OSError):
            words = (place / "cmdline").read_bytes()
            if b"tasks.watchdog" in words and str(own_state).encode() in words:
                found.append(int(place.name))
    return found


def all_settled(own_state: Path) -> bool:
    """Tell whether neither a journal nor a watchdog is left."""
    return not list_journals() and not watchdogs(own_state)


def test_the_way_out_of_a_good_block(names: list[str], directory: Path, own_state: Path) -> None:
    """All are stopped inside, all run afterwards, and nothing is left behind."""
    stack = installation_of(directory, names)
    with stopped(stack, stack.services, reason="a test") as loan:
        assert states(names) == ["exited"] * 3
        assert loan.running_again() == []
        assert len(list_journals()) == len(watchdogs(own_state)) == 1

    assert states(names) == ["running"] * 3
    assert 0 < loan.downtime_seconds < 30
    wait_until(lambda: all_settled(own_state), seconds=5, what="journal and watchdog gone")
    assert not (own_state / "watchdog.log").exists()


def test_giving_back_early_and_starting_one(names: list[str], directory: Path) -> None:
    """A restore starts the server alone; a backup gives back before it compresses; a container that came back is seen."""
    stack = installation_of(directory, names)
    with stopped(stack, stack.services, reason="a test") as loan:
        loan.start("postgres")
        assert states(names) == ["running", "exited", "exited"]
        assert loan.running_again() == []
        containers.start_container(names[2])
        assert loan.running_again() == [names[2]]
        containers.stop_container(names[2], timeout_seconds=5)
        # It is stopped, but it was not all the time.
        assert loan.running_again() == [names[2]]
        loan.give_back()
        assert states(names) == ["running"] * 3
        downtime = loan.downtime_seconds
        containers.stop_container(names[1], timeout_seconds=5)

    # Given back is given back: what the operator does afterwards is not undone.
    assert states(names) == ["running", "exited", "running"]
    assert loan.downtime_seconds == downtime


def test_only_the_named_services_are_borrowed(names: list[str], directory: Path) -> None:
    """Services that the loan does not name run on."""
    stack = installation_of(directory, names)
    with stopped(stack, [stack.application], reason="a test"):
        assert states(names) == ["running", "running", "exited"]

    assert states(names) == ["running"] * 3


@pytest.mark.parametrize("way", ["exception", "SIGKILL"])
def test_former_states_are_kept(way: str, names: list[str], directory: Path, own_state: Path, client: Any) -> None:
    """Paused is paused again, stopped stays stopped, absent stays absent."""
    containers.pause_container(names[1])
    containers.stop_container(names[2], timeout_seconds=5)
    absent = f"{names[0]}-gone"
    everything = [*names, absent]
    if way == "SIGKILL":
        process = borrow(everything, directory)
        read_until(process, "stopped")
        assert states(everything) == ["exited", "exited", "exited", "absent"]
        process.kill()
        process.wait()
        wait_until(lambda: all_settled(own_state), seconds=PROMISED_SECONDS, what="settled by the watchdog")
    else:
        stack = installation_of(directory, everything)
        with pytest.raises(ZeroDivisionError), stopped(stack, stack.services, reason="a test"):
            _ = 1 / 0

    assert states(everything) == ["running", "paused", "exited", "absent"]


def test_a_server_that_was_stopped_stops_again(names: list[str], directory: Path, own_state: Path) -> None:
    """A restore on a stopped stack starts the server, and stops it again, by the watchdog too."""
    for name in names:
        containers.stop_container(name, timeout_seconds=5)
    stack = installation_of(directory, names)
    with stopped(stack, stack.services, reason="a test") as loan:
        loan.start("postgres")
        assert states(names) == ["running", "exited", "exited"]

    assert states(names) == ["exited"] * 3
    assert all_settled(own_state) or wait_until(lambda: all_settled(own_state), seconds=5, what="settled")


def test_a_container_removed_meanwhile_is_passed_over(names: list[str], directory: Path, client: Any) -> None:
    """What is gone cannot be brought back; the others are, without an error."""
    stack = installation_of(directory, names)
    with stopped(stack, stack.services, reason="a test"):
        client.containers.get(names[1]).remove(force=True)

    assert states(names) == ["running", "absent", "running"]


def test_a_container_that_vanished_before_is_refused(names: list[str], directory: Path, client: Any) -> None:
    """Nothing is stopped where the installation is no longer what was read."""
    stack = installation_of(directory, names)
    client.containers.get(names[1]).remove(force=True)
    with pytest.raises(Refused, match="is gone"), stopped(stack, stack.services, reason="a test"):
        pass

    assert states(names) == ["running", "absent", "running"]
    assert list_journals() == []


def test_without_a_watchdog_nothing_is_stopped(
    names: list[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watchdog that does not come up refuses the loan."""
    stack = installation_of(directory, names)
    started = containers.container(names[0])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Refused, match="watchdog"), stopped(stack, stack.services, reason="a test"):
        pass

    assert containers.container(names[0]) == started
    assert list_journals() == []


def test_the_first_error_stays_first(
    names: list[str], directory: Path, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When giving back fails as well, that is a note on the error; and the watchdog, which can, does it."""
    stack = installation_of(directory, names)

    def broken(container_id: str) -> None:
        raise BackupError("Docker is on holiday", transient=True)

    monkeypatch.setattr("tasks.recovery.stopped_services.GIVE_BACK_SECONDS", 1.0)
    monkeypatch.setattr("tasks.adapters.engine.containers.start_container", broken)
    with pytest.raises(ZeroDivisionError) as caught, stopped(stack, stack.services, reason="a test"):
        _ = 1 / 0

    assert "Docker is on holiday" in caught.value.__notes__[0]
    wait_until(lambda: states(names) == ["running"] * 3, seconds=PROMISED_SECONDS, what="running by the watchdog")
    wait_until(lambda: all_settled(own_state), seconds=5, what="journal and watchdog gone")


def test_seconds_from_a_kill_to_running_again(names: list[str], directory: Path, own_state: Path) -> None:
    """The watchdog sees the death through the kernel, not by a heartbeat."""
    process = borrow(names, directory)
    read_until(process, "stopped")
    process.kill()
    seconds = wait_until(lambda: states(names) == ["running"] * 3, seconds=PROMISED_SECONDS, what="all running again")
    process.wait()
    print(f"all three run again {seconds:.2f} s after SIGKILL")

    wait_until(lambda: all_settled(own_state), seconds=10, what="journal and watchdog gone")


def test_a_signal_during_the_giving_back_is_heard_afterwards(
    names: list[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception out of a handler must not leave half of the services down, nor may it get lost."""
    stack = installation_of(directory, names)
    start = containers.start_container

    def start_under_fire(container_id: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        start(container_id)

    def interrupt(number: int, frame: object) -> None:
        raise BackupError(f"interrupted by {number}")

    monkeypatch.setattr("tasks.adapters.engine.containers.start_container", start_under_fire)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(BackupError, match="interrupted by 15"), stopped(stack, stack.services, reason="a test"):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)

    assert states(names) == ["running"] * 3
    assert list_journals() == []


def test_sigterm_to_everything(names: list[str], directory: Path, own_state: Path) -> None:
    """`systemctl stop` signals the flow and the watchdog alike: the one dies, the other stays and gives back."""
    process = borrow(names, directory)
    read_until(process, "stopped")
    for pid in (*watchdogs(own_state), process.pid):
        os.kill(pid, signal.SIGTERM)
    process.wait()

    wait_until(lambda: states(names) == ["running"] * 3, seconds=PROMISED_SECONDS, what="all running")
    wait_until(lambda: all_settled(own_state), seconds=5, what="journal and watchdog gone")


def test_the_watchdog_killed_alone(names: list[str], directory: Path, own_state: Path) -> None:
    """The flow needs no watchdog to give back."""
    stack = installation_of(directory, names)
    with stopped(stack, stack.services, reason="a test"):
        (pid,) = watchdogs(own_state)
        os.kill(pid, signal.SIGKILL)

    assert states(names) == ["running"] * 3
    assert list_journals() == []


def test_both_killed_then_recover(names: list[str], directory: Path, own_state: Path) -> None:
    """After a power cut only the journal is left: `recover` gives back, once."""
    process = borrow(names, directory)
    read_until(process, "stopped")
    for pid in (*watchdogs(own_state), process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert states(names) == ["exited"] * 3
    results = recover.recover()

    assert [(each.kind, each.settled) for each in results] == [("stopped-services", True)]
    assert states(names) == ["running"] * 3
    assert recover.recover() == []


def test_recover_leaves_living_runs_alone(names: list[str], directory: Path) -> None:
    """A timer's `recover` in the middle of a loan changes nothing, whether or not the loan is under the lock."""
    stack = installation_of(directory, names)
    process = borrow(names, directory, seconds=3)
    read_until(process, "stopped")
    assert recover.recover() == []
    assert states(names) == ["exited"] * 3
    read_until(process, "done")

    with stopped(stack, stack.services, reason="a test"):
        assert recover.recover(directory) == []
        assert states(names) == ["exited"] * 3


LIVING = """
import sys
from pathlib import Path
from tasks.adapters.host.journals import open_journal
body = {"project": "mailarchiver-staging-test-00000000", "directory": "/nowhere/staging"}
journal = open_journal(sys.argv[1], body, installation_id="test", installation_directory=Path(sys.argv[2]))
print("opened", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("kind", "in_the_way"), [("staging", False), ("swap", True)])
def test_what_a_living_run_has_beside_the_installation_is_in_nobodys_way(
    directory: Path, own_state: Path, monkeypatch: pytest.MonkeyPatch, kind: str, in_the_way: bool
) -> None:
    """A verification takes no lock and may last for hours: backups and restores go on meanwhile."""
    monkeypatch.setattr(recover, "_CLAIM_SECONDS", 0.5)
    with subprocess.Popen(
        [sys.executable, "-c", LIVING, kind, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == "opened\n"
        if in_the_way:
            with pytest.raises(Busy, match="still lives"):
                recover.recover(directory)
        else:
            assert recover.recover(directory) == []
        living.communicate("")


def test_docker_is_away_when_the_flow_dies(
    names: list[str], directory: Path, own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the daemon restarts the watchdog keeps trying; it writes down what it sees, once."""
    address = engine_client.engine_address()
    if not address.startswith("unix://"):
        pytest.skip(f"the engine at {address} has no socket that could be hidden")
    real = Path(address.removeprefix("unix://"))
    link = tmp_path / "docker.sock"
    link.symlink_to(real)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{link}")
    process = borrow(names, directory)
    read_until(process, "stopped")
    link.unlink()
    process.kill()
    process.wait()
    log = own_state / "watchdog.log"
    wait_until(lambda: log.exists() and "not yet" in log.read_text(), seconds=20, what="a failed attempt")
    time.sleep(2)
    link.symlink_to(real)
    wait_until(lambda: states(names) == ["running"] * 3, seconds=20, what="all running")
    wait_until(lambda: all_settled(own_state), seconds=10, what="settled")

    assert log.read_text().count("not yet") == 1
    assert "settled stopped-services of test" in log.read_text()


def test_a_run_that_comes_first_settles_first(names: list[str], directory: Path, own_state: Path) -> None:
    """The next run after a kill converges, no matter which of it and the watchdog is quicker."""
    process = borrow(names, directory)
    read_until(process, "stopped")
    process.kill()
    process.wait()
    following = borrow(names, directory, seconds=0.5)
    read_until(following, "stopped")
    # The old watchdog is up by now, and must not start anything under the new run's hands.
    time.sleep(0.3)
    assert states(names) == ["exited"] * 3
    read_until(following, "done")

    assert following.wait() == 0
    assert states(names) == ["running"] * 3
    wait_until(lambda: all_settled(own_state), seconds=10, what="settled")


def test_the_watchdog_waits_for_a_run_it_does_not_know(names: list[str], directory: Path, own_state: Path) -> None:
    """While somebody else holds the lock, nothing is started under their hands; afterwards it is."""
    process = borrow(names, directory)
    read_until(process, "stopped")
    os.kill(process.pid, signal.SIGSTOP)
    (pid,) = watchdogs(own_state)
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait()
    with installation_lock(directory, "a restore from elsewhere"):
        os.kill(pid, signal.SIGCONT)
        time.sleep(2.5)
        assert states(names) == ["exited"] * 3

    wait_until(lambda: states(names) == ["running"] * 3, seconds=10, what="all running")
    wait_until(lambda: all_settled(own_state), seconds=5, what="settled")


def test_newer_business_is_settled_before_older(
    names: list[str], directory: Path, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A swap of files begun inside the loan is settled before the server may start; if it cannot be, the server stays down."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            BORROWER.replace(
                "time.sleep(seconds)",
                "from tasks.adapters.host.journals import open_journal\n"
                "        journal = open_journal('a-swap', {}, installation_id='test', installation_directory=directory)\n"
                "        print('swapping', flush=True)\n"
                "        time.sleep(seconds)",
            ),
            ",".join(names),
            str(directory),
            "300",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    read_until(process, "swapping")
    for pid in (*watchdogs(own_state), process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(BackupError, match="nobody here knows"):
        recover.recover(directory)
    assert states(names) == ["exited"] * 3
    monkeypatch.setitem(recover.HANDLERS, "a-swap", f"{__name__}:settle_swap")
    results = recover.recover(directory)

    assert [each.kind for each in results] == ["a-swap", "stopped-services"]
    assert states(names) == ["running"] * 3


def settle_swap(journal: object) -> str:
    """Stand in for a restore's handler."""
    return "swapped back"


def test_killed_while_a_service_takes_its_time_to_stop(directory: Path, own_state: Path, client: Any) -> None:
    """Docker finishes the stop that a killed client had asked for: looking running is not running on."""
    name = f"never-left-down-{os.getpid()}-slow-app"
    slow = ["sh", "-c", "trap 'sleep 2; exit 0' TERM INT; while :; do sleep 0.1; done"]
    client.containers.run(POSTGRES, entrypoint=slow, name=name, detach=True, network_mode="none")
    try:
        before = containers.container(name)
        process = borrow([name], directory)
        wait_until(
            lambda: any('"stop_of_run": "2' in path.read_text() for path in list_journals()), seconds=10, what="a stop"
        )
        time.sleep(0.3)
        assert states([name]) == ["running"]
        process.kill()
        process.wait()
        wait_until(lambda: all_settled(own_state), seconds=PROMISED_SECONDS, what="settled")
        after = containers.container(name)
    finally:
        client.containers.get(name).remove(force=True)

    assert before is not None
    assert after is not None
    assert after.state == "running"
    assert after.started_at > before.started_at


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_moment(number: int, names: list[str], directory: Path, own_state: Path) -> None:
    """SIGKILL anywhere between the start and the end of a loan: all run again, and the next run is green."""
    chance = random.Random(f"kill {number} of the campaign")
    process = borrow(names, directory, seconds=0.2)
    read_until(process, "begin")
    time.sleep(chance.uniform(0, 2.5))
    process.kill()
    process.wait()
    wait_until(lambda: all_settled(own_state), seconds=PROMISED_SECONDS, what="journal and watchdog gone")
    assert states(names) == ["running"] * 3
    again = borrow(names, directory, seconds=0)
    read_until(again, "done")
    assert again.wait() == 0
    assert states(names) == ["running"] * 3


def test_a_real_stack_comes_back_with_its_mail(small_stack: Stack, tmp_path: Path, own_state: Path) -> None:
    """PostgreSQL and the application, killed borrower: the same containers answer again, with the same mail."""
    before = {service: seen[0] for service, seen in small_stack.states().items()}
    mail = content(small_stack)
    services = [small_stack.container(service).name for service in sorted(before, key=lambda name: name != "postgres")]
    process = borrow(services, small_stack.directory)
    read_until(process, "stopped")
    assert states(services) == ["exited"] * len(services)
    process.kill()
    seconds = wait_until(
        lambda: set(states(services)) == {"running"}, seconds=PROMISED_SECONDS, what="all running again"
    )
    process.wait()
    small_stack.wait_postgres()
    small_stack.wait_app()
    print(f"the stack's containers run again {seconds:.2f} s after SIGKILL")

    assert {service: seen[0] for service, seen in small_stack.states().items()} == before
    assert content(small_stack) == mail
    wait_until(lambda: all_settled(own_state), seconds=10, what="settled")
