"""Prefect's server answers many at once: nothing that it does for itself holds up the loop that serves them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.prefect_server import PrefectServer, ask, prefect_server
from tests.settings import write_settings

pytestmark = pytest.mark.timeout(300)

AT_ONCE, TIMES = 30, 2
# Half of the time after which a statement of SQLite's gives up waiting: the tables are locked for moments.
LONGEST_SECONDS = 30


def test_thirty_runs_that_report_at_once_are_answered(tmp_path: Path) -> None:
    """Python's garbage collector, in the loop's thread, waited for statements whose lock only the loop could give back."""
    (tmp_path / "main").mkdir()
    main = {"directory": tmp_path / "main", "repository": tmp_path / "backups"}
    settings = write_settings(tmp_path / "settings.yaml", {"main": main})
    with prefect_server(tmp_path, settings_file=settings, state=tmp_path / "state") as server:
        flow = str(ask(server, "flows/", {"name": "busy"})["id"])
        with ThreadPoolExecutor(AT_ONCE) as several:
            longest = list(several.map(lambda _: longest_answer(server, flow), range(AT_ONCE * TIMES)))
        log = (tmp_path / "server.log").read_text()

    assert max(longest) < LONGEST_SECONDS
    assert "database is locked" not in log


def longest_answer(server: PrefectServer, flow: str) -> float:
    """Report a run from its beginning to its end; give the seconds of the request that took longest."""
    seconds = []
    run = ""
    for state in ("SCHEDULED", "PENDING", "RUNNING", "COMPLETED"):
        begun = time.monotonic()
        if not run:
            run = str(ask(server, "flow_runs/", {"flow_id": flow, "state": {"type": state}})["id"])
        else:
            told = ask(server, f"flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
            assert told["status"] == "ACCEPT"
        seconds.append(time.monotonic() - begun)
    return max(seconds)
