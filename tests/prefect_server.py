"""A real Prefect server and process worker for tests: their own home, a free port, and gone at the end of the block."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from deployments.password import AUTH_VARIABLE, CLIENT_VARIABLE
from deployments.serve import WORKER_COMMAND, server_command, server_environment
from tasks.adapters.host.state import STATE_VARIABLE

ROOT = Path(__file__).parents[1]
DATABASE = "prefect.db"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class PrefectServer:
    """Where a server answers, and the environment in which its programs run."""

    url: str
    environment: dict[str, str]
    home: Path
    place: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start the server, for the first time or again on the same home and port; return when it answers."""
        address = urllib.parse.urlsplit(self.url)
        log = self.place / "server.log"
        command = server_command(str(address.hostname), int(address.port or 0))
        self.processes.append(_start(command, self.environment, log))
        _wait_for(f"{self.url}/api/health", self.processes[-1], log)

    def kill(self) -> None:
        """Kill the server at once, with all that it started."""
        kill_group(self.processes[-1])

    def run(self, *arguments: str, timeout_seconds: float = 120) -> str:
        """Run a `prefect` command to its end and return what it printed."""
        done = subprocess.run(
            [_program("prefect"), *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        assert done.returncode == 0, f"prefect {' '.join(arguments)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def python(self, code: str, timeout_seconds: float = 120) -> str:
        """Run Python code with the server as its API; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@contextmanager
def prefect_server(place: Path, *, settings_file: Path, state: Path) -> Iterator[PrefectServer]:
    """Start a server, its API and UI on a free loopback port; end it at the end of the block."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATE_VARIABLE, str(state))
        patch.delenv(AUTH_VARIABLE, raising=False)
        environment = {
            **os.environ,
            **server_environment(settings_file, host="127.0.0.1", port=port),
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }
    home = Path(environment["PREFECT_HOME"])
    server = PrefectServer(f"http://127.0.0.1:{port}", environment, home, place)
    made = _take_database(home)
    try:
        server.start()
        if made is not None:
            _keep_database(home, made)
        yield server
    finally:
        for process in server.processes:
            _end(process)
        shutil.rmtree(home, ignore_errors=True)


def _take_database(home: Path) -> Path | None:
    """Give a server the tables that another's migrations made, for theirs take six seconds of a core; or say where to keep its own."""
    kept = Path(tempfile.gettempdir()) / f"mailarchiver-backup-prefect-{version('prefect')}-{os.getuid()}.db"
    if (home / DATABASE).exists():
        return None
    if not kept.exists() or kept.stat().st_uid != os.getuid():
        return kept
    shutil.copyfile(kept, home / DATABASE)
    (home / DATABASE).chmod(0o600)
    return None


def _keep_database(home: Path, place: Path) -> None:
    """Keep the database of a server that has just started for those that come after it."""
    descriptor, copy = tempfile.mkstemp(dir=place.parent)
    os.close(descriptor)
    with closing(sqlite3.connect(home / DATABASE)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    os.replace(copy, place)


@contextmanager
def prefect_worker(server: PrefectServer, place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker for the deployments' pool; end it, and what it runs, at the end of the block."""
    worker = _start(WORKER_COMMAND, server.environment, place / "worker.log")
    try:
        yield worker
    finally:
        _end(worker)


def deploy_installations(server: PrefectServer) -> None:
    """Deploy as an operator does, with the schedules, limits and automations that belong to it."""
    done = subprocess.run(
        [_program("mailarchiver-backup"), "deploy"], env=server.environment, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def basic(auth_string: str) -> str:
    """Give the header by which a client shows USER:PASSWORD."""
    return f"Basic {b64encode(auth_string.encode()).decode()}"


def ask(server: PrefectServer, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """Ask the API as anybody does who has the password; raise HTTPError, its reason in it, where that is refused."""
    data = None if body is None else json.dumps(body).encode()
    deadline = time.monotonic() + 30
    while True:
        request = urllib.request.Request(
            f"{server.url}/api/{path}",
            data,
            {"Content-Type": "application/json", "Authorization": basic(server.environment[CLIENT_VARIABLE])},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:  # SQLite: "database is locked", now and then
                raise
            time.sleep(0.5)


def start_run(server: PrefectServer, deployment: str, parameters: dict[str, Any], **more: Any) -> str:
    """Ask the API for a run of a deployment; return its id."""
    found = ask(server, f"deployments/name/{deployment}")
    return str(ask(server, f"deployments/{found['id']}/create_flow_run", {"parameters": parameters, **more})["id"])


def runs(server: PrefectServer, states: Sequence[str] = ()) -> list[dict[str, Any]]:
    """List all flow runs, or those in these states: without the many that are planned."""
    wanted = {"flow_runs": {"state": {"type": {"any_": list(states)}}}} if states else {}
    return [_plain(run) for run in ask(server, "flow_runs/filter", {"limit": 200, "sort": "START_TIME_DESC", **wanted})]


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": run["id"], "name": run["name"], "state": run["state_type"], "message": (run["state"] or {}).get("message") or "",
        "parameters": run["parameters"], "auto": run["auto_scheduled"], "deployment": run["deployment_id"],
    }  # fmt: skip


def wait_for_run(server: PrefectServer, wanted: Any, *, timeout_seconds: float = 120) -> dict[str, Any]:
    """Wait until a run (by id, or by a predicate) has ended; return it."""
    # A list of runs costs the server more than one run does: it is asked for less often.
    pause_seconds = 0.5 if isinstance(wanted, str) else 1
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            found = [_plain(ask(server, f"flow_runs/{wanted}"))] if isinstance(wanted, str) else runs(server, ENDED)
        except OSError:  # busy, or starting
            found = []
        for run in found:
            if run["state"] in ENDED and (isinstance(wanted, str) or wanted(run)):
                return run
        time.sleep(pause_seconds)
    raise AssertionError(
        f"no such run has ended in {timeout_seconds} s: {[(r['name'], r['state']) for r in runs(server)]}"
    )


def set_cancelling(server: PrefectServer, run: str) -> None:
    """Ask for a run's end, with the request that the UI's Cancel button sends."""
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
    assert ask(server, f"flow_runs/{run}/set_state", state)["status"] == "ACCEPT"


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its group, and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(15)


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        assert server.poll() is None, log.read_text()[-3000:]
        time.sleep(0.2)
    raise AssertionError(f"the Prefect server does not answer: {log.read_text()[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(3)  # a worker takes its time, and nothing here depends on its farewell
    except subprocess.TimeoutExpired:
        kill_group(process)
