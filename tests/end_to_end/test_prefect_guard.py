"""Prefect is guarded: without the password nobody reads or starts anything; with it, our flows and nothing else."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import PickleSerializer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from deployments.password import AUTH_VARIABLE
from tasks.adapters.host.listening import listen
from tasks.core.policy.run_claims import LOCKED_TEMPLATE, POOL
from tests.browser.conftest import CHROMIUM
from tests.cli import PROGRAM
from tests.prefect_server import (
    PrefectServer,
    ask,
    basic,
    deploy_installations,
    prefect_server,
    prefect_worker,
    runs,
    start_run,
    wait_for_run,
)
from tests.settings import write_settings

pytestmark = pytest.mark.timeout(400)

OPEN_TEMPLATE = {
    "job_configuration": {"command": "{{ command }}", "env": "{{ env }}", "working_dir": "{{ working_dir }}"},
    "variables": {"type": "object", "properties": {"command": {"type": "string"}, "env": {"type": "object"}, "working_dir": {"type": "string"}}},
}  # fmt: skip
NOW = {"type": "SCHEDULED", "name": "Scheduled"}
MUCH_LATER = {**NOW, "state_details": {"scheduled_time": "2999-01-01T00:00:00Z"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Lend a server with our deployments, and no worker; the installation has no stack, which `watch` does not mind."""
    place = tmp_path_factory.mktemp("guarded")
    (place / "main").mkdir()
    main = {"directory": place / "main", "repository": place / "backups"}
    settings = write_settings(place / "settings.yaml", {"main": main})
    with prefect_server(place, settings_file=settings, state=place / "state") as running:
        deploy_installations(running)
        yield running


@pytest.fixture(scope="module")
def worker(server: PrefectServer) -> Iterator[None]:
    with prefect_worker(server, server.place):
        yield


def evil(server: PrefectServer) -> Path:
    """Name the file that is made where anything is executed."""
    return server.place / "evil"


# What somebody who has the password changes, and the words by which the run is refused.


def deployed(server: PrefectServer, name: str, **changes: Any) -> str:
    """Deploy one of ours again, changed; return its id."""
    found = ask(server, f"deployments/name/{name}/{name}")
    kept = ("name", "flow_id", "entrypoint", "pull_steps", "path", "job_variables", "tags", "work_pool_name", "work_queue_name", "parameters")  # fmt: skip
    return str(ask(server, "deployments/", {**{key: found[key] for key in kept}, **changes})["id"])


def set_template(server: PrefectServer, template: dict[str, Any]) -> None:
    ask(server, f"work_pools/{POOL}", {"base_job_template": template}, "PATCH")


def run_of(server: PrefectServer, deployment: str, **more: Any) -> str:
    return str(ask(server, f"deployments/{deployment}/create_flow_run", {"parameters": {"installation": "main"}, "enforce_parameter_schema": False, **more})["id"])  # fmt: skip


def module(server: PrefectServer) -> str:
    """Write a module that makes the file when it is imported, and has a flow; name its place."""
    place = server.place / "modules"
    place.mkdir(exist_ok=True)
    (place / "theirs.py").write_text(
        f"from pathlib import Path\nfrom prefect import flow\nPath({str(evil(server))!r}).touch()\n@flow\ndef theirs(): pass\n"
    )
    return str(place)


def attacks(server: PrefectServer) -> dict[str, str]:
    """Make every changed run; return the ids, by the words that must say why it was refused."""
    place, touch = module(server), f"touch {evil(server)}"
    shell = {"prefect.deployments.steps.run_shell_script": {"script": touch}}
    into = {"prefect.deployments.steps.set_working_directory": {"directory": place}}
    watch = ask(server, "deployments/name/watch/watch")
    flow = ask(server, "flows/", {"name": "theirs"})["id"]

    set_template(server, OPEN_TEMPLATE)
    commanded = run_of(server, watch["id"], job_variables={"command": touch})
    surrounded = run_of(server, watch["id"], job_variables={"env": {"PYTHONPATH": place, "PREFECT__FLOW_ENTRYPOINT": f"{place}/theirs.py:theirs"}, "working_dir": place})  # fmt: skip
    variables = run_of(server, deployed(server, "commit", job_variables={"command": touch}))
    set_template(server, LOCKED_TEMPLATE)

    def own(name: str, flow_id: str) -> str:
        body = {"name": name, "flow_id": flow_id, "entrypoint": f"{place}/theirs.py:theirs", "work_pool_name": POOL}
        return run_of(server, ask(server, "deployments/", body)["id"])

    adhoc = ask(server, "flow_runs/", {"flow_id": watch["flow_id"], "work_pool_name": POOL, "state": NOW, "job_variables": {"command": touch}})  # fmt: skip
    return {
        "its job_variables are '{\"command\"": commanded,
        "its job_variables are '{\"env\"": surrounded,
        "deployment commit is not as it was deployed, and its run is not started: job_variables is": variables,
        "entrypoint is": run_of(server, deployed(server, "hot-backup", entrypoint=f"{place}/theirs.py:theirs")),
        "entrypoint is 'theirs.theirs'": run_of(server, deployed(server, "online-backup", entrypoint="theirs.theirs", pull_steps=[into])),
        "pull_steps is": run_of(server, deployed(server, "prune", pull_steps=[shell])),
        "path is": run_of(server, deployed(server, "rollback", path=place, pull_steps=[])),
        "deployment 'theirs' is none of mailarchiver-backup": own("theirs", flow),
        "flow is 'theirs', not 'watch'": own("watch", flow),
        "belongs to no deployment": adhoc["id"],
    }  # fmt: skip


def test_a_run_that_was_changed_is_refused_and_executes_nothing(
    server: PrefectServer, request: pytest.FixtureRequest
) -> None:
    """Anyone who has the password may write anything to the server: the worker takes it for claims, and says which is wrong."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        start_run(server, "watch/watch", {"installation": "main"}, job_variables={"command": "id"})
    assert caught.value.code == 422  # the pool lets nothing be set, so the server itself refuses
    made = attacks(server)
    request.getfixturevalue("worker")

    for words, run in made.items():
        ended = wait_for_run(server, run, timeout_seconds=60)
        assert ended["state"] == "FAILED", (words, ended)
        assert words in ended["message"]
        assert "HINT: " in ended["message"]
    assert not evil(server).exists()


def test_a_changed_pool_stops_every_run_until_deploy_puts_it_right(server: PrefectServer, worker: None) -> None:
    """What was changed is there again after one `deploy`, and an honest run completes."""
    set_template(server, {**OPEN_TEMPLATE, "job_configuration": {"command": f"touch {evil(server)}"}})
    refused = wait_for_run(server, start_run(server, "watch/watch", {"installation": "main", "alarm": False}))
    assert "base_job_template of the work pool is" in refused["message"]

    ask(server, f"work_pools/{POOL}", method="DELETE")
    ask(server, "work_pools/", {"name": POOL, "type": "process", "base_job_template": OPEN_TEMPLATE})
    deploy_installations(server)

    pool = ask(server, f"work_pools/{POOL}")
    assert (pool["type"], pool["base_job_template"]) == ("mailarchiver-backup", LOCKED_TEMPLATE)
    ended = wait_for_run(server, start_run(server, "watch/watch", {"installation": "main", "alarm": False}))
    assert (ended["state"], ended["name"]) == ("COMPLETED", "watch over main")
    assert not evil(server).exists()


def run_process(server: PrefectServer, run: str) -> subprocess.CompletedProcess[str]:
    """Start a run's process as the worker does after its check, whatever was changed since."""
    environment = {**server.environment, "PREFECT__FLOW_RUN_ID": run, "PREFECT__FLOW_ENTRYPOINT": "flows.watch.watch"}
    return subprocess.run(
        [sys.executable, "-m", "deployments.flow_process"], env=environment, cwd="/", capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip


def test_a_change_after_the_check_changes_nothing(server: PrefectServer) -> None:
    """The process takes its flow from the package: an entrypoint and pull steps that come late are not looked at."""
    shell = {"prefect.deployments.steps.run_shell_script": {"script": f"touch {evil(server)}"}}
    run = start_run(server, "watch/watch", {"installation": "main", "alarm": False}, state=MUCH_LATER)
    deployed(server, "watch", entrypoint=f"{module(server)}/theirs.py:theirs", pull_steps=[shell])
    ask(server, f"flow_runs/{run}/set_state", {"state": {"type": "PENDING"}, "force": True})

    done = run_process(server, run)

    assert done.returncode == 0, done.stderr
    assert wait_for_run(server, run)["state"] == "COMPLETED"
    assert not evil(server).exists()


class _Touch:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.place}",)


def test_a_result_that_the_server_names_is_not_read(server: PrefectServer) -> None:
    """A state may point to a file that is a pickle, and reading one runs code."""
    planted = server.place / "planted"
    metadata = ResultRecordMetadata(storage_key=str(planted), serializer=PickleSerializer())
    planted.write_bytes(ResultRecord(result=_Touch(evil(server)), metadata=metadata).serialize())
    run = start_run(server, "watch/watch", {"installation": "main"}, state=MUCH_LATER)
    data = json.loads(metadata.model_dump_json())
    ask(server, f"flow_runs/{run}/set_state", {"state": {"type": "COMPLETED", "data": data}, "force": True})

    done = run_process(server, run)

    assert "it is not read" in done.stderr + done.stdout, done.stderr
    assert not evil(server).exists()


# Who has no password.

PROBE = """
import json, os, sys, urllib.error, urllib.request
url, secrets, processes = json.loads(sys.argv[1])
assert os.getuid() == 65534
def seen(act):
    try:
        return repr(act())[:200]
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__
def asked(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    return seen(lambda: urllib.request.urlopen(urllib.request.Request(url + path, data, {"Content-Type": "application/json"}), timeout=30).read())
print(json.dumps({
    "read": [asked("/api/" + path) for path in ("admin/settings", "deployments/name/watch/watch", "work_pools/mailarchiver")],
    "start": [asked("/api/" + path, {}) for path in ("deployments/filter", "flow_runs/filter", "flow_runs/", "events", "automations/", "work_pools/mailarchiver/get_scheduled_flow_runs")],
    "files": [seen(lambda place=place: open(place).read()) for place in secrets],
    "environments": [seen(lambda pid=pid: open("/proc/%d/environ" % pid).read()) for pid in processes],
    "commands": [seen(lambda pid=pid: open("/proc/%d/cmdline" % pid).read()) for pid in processes],
}))
"""


def test_another_user_of_the_machine_neither_reads_nor_starts(server: PrefectServer, worker: None) -> None:
    """All that one sees who is nobody: that there is a server. Neither its answers, nor the password, nor the files."""
    password = server.environment[AUTH_VARIABLE]
    state = server.place / "state" / "prefect"
    files = [str(path) for path in sorted(state.rglob("*")) if path.is_file() and "ui" not in str(path)]
    assert {Path(each).name for each in files} >= {"password.json", "prefect.db", "prefect.yaml"}
    asked = json.dumps([server.url, files, [process.pid for process in server.processes]])
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", PROBE, asked], user=65534, group=65534, extra_groups=[], env={"PATH": "/usr/bin:/bin"}, cwd="/",
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)

    assert set(seen["read"]) == set(seen["start"]) == {401}
    assert set(seen["files"]) == set(seen["environments"]) == {"PermissionError"}
    assert password.partition(":")[2] not in done.stdout
    for path in ("events/in", "events/out", "logs/out", f"work_pools/{POOL}/workers/connect"):
        address = f"{server.url.replace('http', 'ws')}/api/{path}"
        with connect(address, subprotocols=[Subprotocol("prefect")]) as channel:
            channel.send(json.dumps({"type": "auth", "token": "operator:guess"}))
            with pytest.raises(ConnectionClosed):
                channel.recv(20)


def test_who_took_the_servers_port_is_told_no_password(tmp_path: Path) -> None:
    """Any user may listen on a free port, and would be asked for the deployments with the password: `serve` sees it first."""
    settings = write_settings(
        tmp_path / "settings.yaml", {"main": {"directory": tmp_path, "repository": tmp_path / "b"}}
    )
    heard: list[str | None] = []
    with page_of_somebody_else("true", heard) as port:
        done = subprocess.run(
            [PROGRAM, "serve", "--settings", str(settings), "--port", str(port)], capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in done.stderr
    assert heard == []


def test_a_port_is_ours_from_the_first_moment() -> None:
    """Also before anybody answers on it, and whatever another's socket is willing to share."""
    with listen("127.0.0.1", 0) as taken:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, option, 1)
                with pytest.raises(OSError, match="in use"):
                    other.bind(taken.getsockname())


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1.evil.example:{port}", "127.0.0.1:1", ""])  # fmt: skip
def test_a_request_for_another_name_is_refused(server: PrefectServer, host: str) -> None:
    """DNS rebinding: the page's name was pointed at this machine, and Host still says whose page it is."""
    place = urlsplit(server.url)
    for path in ("/api/health", "/api/admin/settings", "/", "/ui-settings"):
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
        headers = {"Host": host.format(port=place.port), "Authorization": basic(server.environment[AUTH_VARIABLE])}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert (answer.status, b"HINT: ask for" in answer.read()) == (400, True)
        connection.close()


PAGE = """<script>
const api = API, password = PASSWORD, deployment = DEPLOYMENT
const attempts = {
  read: () => fetch(`${api}/deployments/filter`, {method: "POST", headers: {"Content-Type": "application/json", Authorization: password}, body: "{}"}).then(a => a.text()),
  health: () => fetch(`${api}/health`).then(a => a.text()),
  start: () => fetch(`${api}/deployments/${deployment}/create_flow_run`, {method: "POST", headers: {"Content-Type": "application/json", Authorization: password}, body: "{}"}).then(a => a.text()),
  blind: () => fetch(`${api}/deployments/${deployment}/create_flow_run`, {method: "POST", mode: "no-cors", body: "{}"}).then(() => "sent"),
  socket: () => new Promise((opened, failed) => { const s = new WebSocket(api.replace("http", "ws") + "/events/in", ["prefect"]); s.onopen = () => opened("open"); s.onerror = () => failed("closed") }),
}
async function all() { const found = {}; for (const name in attempts) { try { found[name] = await attempts[name]() } catch (e) { found[name] = "refused: " + e } } return found }
</script>"""


@contextlib.contextmanager
def page_of_somebody_else(text: str, heard: list[str | None] | None = None) -> Iterator[int]:
    """Serve a page on a port of its own; give the port. What is asked with which authorization goes to `heard`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if heard is not None:
                heard.append(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving.server_address[1]
    serving.shutdown()


@pytest.mark.browser
def test_a_page_of_another_origin_neither_reads_nor_starts(server: PrefectServer, chromium: str) -> None:
    """In Chromium, even one that knows the password: from another port, another name, and a name that was pointed at this machine."""
    port = urlsplit(server.url).port
    deployment = ask(server, "deployments/name/prune/prune")["id"]
    before = {each["id"] for each in runs(server)}
    values = {"PASSWORD": basic(server.environment[AUTH_VARIABLE]), "DEPLOYMENT": deployment}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*CHROMIUM, "--host-resolver-rules=MAP *.example 127.0.0.1"])  # fmt: skip
        for api in (f"http://127.0.0.1:{port}/api", f"http://rebound.example:{port}/api"):
            text = PAGE.replace("API", json.dumps(api), 1)
            for name, value in values.items():
                text = text.replace(name, json.dumps(value), 1)
            with page_of_somebody_else(text) as theirs:
                for origin in (f"http://evil.example:{theirs}", f"http://127.0.0.1:{theirs}"):
                    page = browser.new_page()
                    page.goto(origin)
                    found = page.evaluate("all()")
                    assert all(each.startswith("refused: ") for name, each in found.items() if name != "blind"), found
                    page.close()
        page = browser.new_page()
        answer = page.goto(f"http://rebound.example:{port}/")
        assert answer is not None
        assert answer.status == 400
        own = page.goto(server.url)
        assert own is not None
        # Nor is ours shown in a frame of theirs, where somebody's clicks could be lured.
        assert (own.status, own.headers["x-frame-options"]) == (200, "DENY")
        browser.close()
    assert {each["id"] for each in runs(server)} - before == set()
