"""P18: notifications reach a real receiver: of what failed, of what was not proven, of what died, of what did not happen, of little room.

None of this needs Prefect: server and worker may be dead. What only a server can see is in test_prefect_dies and test_prefect_deployments.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flows.automated_backup import automated_backup
from flows.complete_backup import complete_backup
from flows.hot_backup import hot_backup
from flows.restore_verification import restore_verification
from flows.watch import watch
from tasks.adapters.archive.identity import private_key
from tasks.core.archive.authenticity import sign_record
from tasks.core.archive.manifest import parse_record
from tasks.core.errors import BackupError
from tasks.oversight.status import raise_alarms
from tasks.run.context import config_of
from tasks.verification.verify import NotProven
from tests.cli import PROGRAM, run_program, start_program
from tests.receiver import Receiver, receiver
from tests.settings import ALL_RISKS, write_settings
from tests.stack.stack import APPLICATION_SERVICE, Stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

EVERYTHING = ["success", "failure", "verification", "shrink", "overdue", "space", "recovery", "repository", "keys"]


@dataclass
class House:
    """An installation with its settings, and who hears of it."""

    stack: Stack
    place: Path
    heard: Receiver

    @property
    def repository(self) -> Path:
        """Where the archives are."""
        return self.place / "backups"

    def write(self, **more: Any) -> None:
        """Write the settings, with more of them."""
        common = {
            "directory": self.stack.directory, "repository": self.repository, "metrics_directory": self.place / "metrics",
            "notifications": self.heard.settings(events=EVERYTHING), "accept_risks": ALL_RISKS,
        }  # fmt: skip
        write_settings(self.place / "settings.yaml", {"main": {**common, **more}})

    def command(self, *words: str) -> list[str]:
        """Write a command line for the installation main."""
        return [PROGRAM, *words, "--settings", str(self.place / "settings.yaml")]

    def run(self, *words: str) -> int:
        """Run a command to its end; return its exit code."""
        return run_program(self.command(*words))[0]

    def news(self) -> list[str]:
        """Give the titles that arrived since the last call, without what all have in common."""
        titles = [title.removeprefix("mailarchiver-backup: ").replace(" of main", "") for title in self.heard.titles()]
        self.heard.arrived.clear()
        return titles

    def record(self) -> Path:
        """Give the newest backup's record."""
        return max(self.repository.glob("*.manifest.json"))


@pytest.fixture
def house(small_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    with receiver() as heard:
        made = House(small_stack, tmp_path, heard)
        made.write()
        monkeypatch.setenv("MAILARCHIVER_BACKUP_SETTINGS", str(tmp_path / "settings.yaml"))
        yield made


def test_failure_success_and_their_pings_and_metrics(house: House) -> None:
    """A night that fails pings and tells so, one that succeeds too, and the metrics hold what a person would ask for."""
    house.write(minimum_free_bytes="900 TB")
    with pytest.raises(BackupError, match="free"):
        automated_backup.fn("main")
    assert house.heard.pings() == ["start", "fail"]
    assert "automated backup failed" in house.news()

    house.write()
    automated_backup.fn("main")
    assert house.heard.pings() == ["start", ""]
    assert "failure is over" in house.news()
    found = metrics(house)
    record = json.loads(house.record().read_text())
    moment = datetime.fromisoformat(record["manifest"]["created_at"]).timestamp()
    assert found["last_timestamp_seconds"] == found["last_verified_timestamp_seconds"] == pytest.approx(moment)
    assert found["last_bytes"] == record["bytes"]
    assert found["last_duration_seconds"] == record["seconds"]
    assert found["last_downtime_seconds"] == 0
    assert (found["last_verdict verified"], found["last_verdict failed"]) == (1, 0)
    assert found["free_bytes"] > 0
    assert found["rto_seconds"] > 0
    assert found["problems"] == 0
    assert time.time() - found["checked_timestamp_seconds"] < 60


def test_a_failed_verification_is_told_until_one_succeeds(house: House) -> None:
    """A later backup that nobody has looked at yet makes nothing good; an older one's bad end is told as well."""
    hot_backup.fn("main")
    archive = next(house.repository.glob("*.tar.gz"))
    damaged = bytearray(archive.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    archive.write_bytes(damaged)
    with pytest.raises(NotProven) as refuted:
        restore_verification.fn("main")
    assert refuted.value.verified.verification.verdict == "failed"
    assert [title for title in house.news() if "verification" in title] == ["verification"]

    hot_backup.fn("main")
    watch.fn("main")
    assert [title for title in house.news() if "verification" in title] == []
    assert restore_verification.fn("main").verification.verdict == "verified"
    assert "verification is over" in house.news()

    # The first, again: it is not the newest that was judged, and still somebody hears of it.
    with pytest.raises(NotProven):
        restore_verification.fn("main", archive.name.removesuffix(".tar.gz"))
    assert f"{archive.name} is failed" in house.news()


@pytest.mark.parametrize("left_to", ["watchdog", "recover"])
def test_what_a_dead_run_left_is_told_by_whoever_settles_it(house: House, left_to: str) -> None:
    """A run that is killed with the stack down can tell nobody; its watchdog can, or the recovery timer where that died too."""
    begun = start_program(house.command("backup", "complete"))
    wait_until(lambda: states(house)[APPLICATION_SERVICE] != "running", 60, "the stack was not stopped")
    if left_to == "recover":
        for watchdog in watchdogs():
            os.kill(watchdog, signal.SIGKILL)
    begun.send_signal(signal.SIGKILL)
    begun.wait(30)
    if left_to == "recover":
        assert house.run("recover", "--directory", str(house.stack.directory)) == 0
    wait_until(lambda: house.heard.titles(), 60, "nobody was told")
    house.stack.wait_app()

    (told,) = house.heard.notifications()
    assert told["title"] == "mailarchiver-backup: a run of main had died"
    assert "settled" in told["message"]
    history = Path(os.environ["MAILARCHIVER_BACKUP_STATE"]) / "history" / "main.jsonl"
    assert [json.loads(line)["run"] for line in history.read_text().splitlines()] == ["recovery"]
    house.news()
    complete_backup.fn("main")
    assert house.news() == []


def test_silence_and_little_room_are_told_without_prefect(house: House) -> None:
    """What the watch's timer runs: overdue backups and room that gets short, each once while it lasts, and once that it is over."""
    both = [start_program(house.command("status", "--alarm")) for _ in range(2)]
    assert [each.wait(60) for each in both] == [1, 1]
    assert house.news() == ["overdue"]
    earlier = watch.fn("main", alarm=False).status
    hot_backup.fn("main")
    watch.fn("main")
    assert house.news() == ["overdue is over"]
    # A run that looked before the backup, and comes to tell only now.
    raise_alarms(config_of("main"), earlier)
    assert house.news() == []

    aged(house, timedelta(days=3))
    house.write(alarms={"free_below_bytes": "900 TB"})
    watch.fn("main")
    assert house.news() == ["overdue", "space"]
    watch.fn("main")
    assert house.news() == []
    assert metrics(house)["problem overdue"] == metrics(house)["problem space"] == 1
    assert time.time() - metrics(house)["last_timestamp_seconds"] == pytest.approx(3 * 86400, abs=300)

    house.write()
    watch.fn("main")
    assert house.news() == ["space is over"]


def states(house: House) -> dict[str, str]:
    return {service: state for service, (_, state, _) in house.stack.states().items()}


def watchdogs() -> list[int]:
    """Find the watchdogs of this test's own state directory."""
    ours = f"MAILARCHIVER_BACKUP_STATE={os.environ['MAILARCHIVER_BACKUP_STATE']}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if b"tasks.watchdog" in (place / "cmdline").read_bytes() and ours in (place / "environ").read_bytes().split(
                b"\0"
            ):
                found.append(int(place.name))
        except OSError:
            continue
    assert found
    return found


def aged(house: House, by: timedelta) -> None:
    """Make the newest backup older, by a date that is signed as `adopt` signs one."""
    place = house.record()
    record = parse_record(place.read_text(), source=place.name)
    key = private_key("main", house.stack.directory)
    assert key is not None
    dated = record.model_copy(update={"dated": datetime.now(UTC) - by})
    place.write_text(sign_record(dated, key).model_dump_json())


def metrics(house: House) -> dict[str, float]:
    """Read the metrics as Prometheus does; a second label goes to the name."""
    text = (house.place / "metrics" / "mailarchiver_backup_main.prom").read_text()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            second = [value for name, value in sample.labels.items() if name != "installation"]
            found[" ".join([sample.name.removeprefix("mailarchiver_backup_"), *second])] = sample.value
    return found
