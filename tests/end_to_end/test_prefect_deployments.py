"""The deployments of prefect.yaml on a real server and worker, against a real stack."""

from __future__ import annotations

import json
import logging
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.test_foreign_dumps import archive_of, dumped
from tests.hostile_dumps import CODE
from tests.prefect_server import (
    ROOT,
    PrefectServer,
    ask,
    deploy_installations,
    prefect_server,
    prefect_worker,
    runs,
    start_run,
    wait_for_run,
)
from tests.receiver import Receiver, receiver
from tests.settings import write_settings
from tests.stack.stack import Stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]

DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
SOON = """
from datetime import timedelta
from prefect.client.orchestration import get_client
from deployments.reconcile import replace_automation, save_blocks, tell_late
from deployments.webhooks import webhooks
from tasks.adapters.host.settings_file import load_settings
with get_client(sync_client=True) as client:
    replace_automation(client, tell_late(save_blocks(client, webhooks(load_settings())), timedelta(seconds=10)))
"""


LONG_STEP = """
import time
from prefect import flow
from tasks import progress
progress._Artifact.every_seconds = 0.1
@flow
def long_step():
    with progress.progress("dump of a long step", expected_bytes=100) as tell:
        for done in range(0, 60, 3):
            tell(done)
            time.sleep(0.1)
long_step()
"""


class Host:
    """A server with every deployment of two installations, of which only main has a stack; who is told of it hears it."""

    def __init__(self, server: PrefectServer, stack: Stack, heard: Receiver) -> None:
        self.server, self.stack, self.heard = server, stack, heard
        self.repository, self.copies = server.place / "backups", server.place / "copies"

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the API as anybody does who reaches it."""
        return ask(self.server, path, body)

    def start(self, deployment: str, **parameters: str) -> str:
        """Ask for a run; return its id."""
        return start_run(self.server, f"{deployment}/{deployment}", {"installation": "main", **parameters})

    def write_settings(self, *, office: bool, told: bool, approval_seconds: int = 3) -> None:
        """Write the settings, with an office or without one, and with somebody to tell or without."""
        timeouts = {"approval_seconds": approval_seconds}
        self.copies.mkdir(exist_ok=True)
        main = {
            "directory": self.stack.directory, "repository": self.repository, "timeouts": timeouts,
            "copies": [{"name": "disk", "remote": str(self.copies)}],
        }  # fmt: skip
        if told:
            main["notifications"] = self.heard.settings()
        other = {"directory": self.server.place / "office", "repository": self.server.place / "backups-office"}
        write_settings(
            self.server.place / "settings.yaml", {"main": main, **({"office": other} if office else {})}
        )  # fmt: skip


@pytest.fixture(scope="module")
def host(small_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Lend a server with the deployments of two installations, and no worker yet."""
    place = tmp_path_factory.mktemp("prefect")
    with receiver() as heard:
        with prefect_server(place, settings_file=place / "settings.yaml", state=place / "state") as running:
            made = Host(running, small_stack, heard)
            made.write_settings(office=True, told=True)
            deploy_installations(running)
            yield made


@pytest.fixture(scope="module")
def worker(host: Host) -> Iterator[None]:
    with prefect_worker(host.server, host.server.place):
        yield


# Give the backup an older date, signed as `adopt` signs one.
FOUR_DAYS_OLDER = """
from datetime import timedelta
from tasks.adapters.archive.identity import private_key
from tasks.adapters.archive.repository import list_backups, write_record
from tasks.core.archive.authenticity import sign_record
from tasks.run.context import config_of
config = config_of("main")
(old,) = list_backups(config.repository)
older = old.record.model_copy(update={"dated": old.record.manifest.created_at - timedelta(days=4)})
write_record(old.path, sign_record(older, private_key(config.id, config.directory)))
"""


def test_after_three_nights_without_a_host_one_backup_is_made_and_people_are_told(
    host: Host, request: pytest.FixtureRequest
) -> None:
    """Runs of three nights wait when the worker comes back: one backup, no double run, and a free queue afterwards."""
    # Nobody is there to begin a run, and the server tells so: after an hour, here after seconds. (Not of those three
    # nights' runs: Prefect takes runs planned for the past, which it never does by itself, for events whose predecessor
    # is still to come.)
    host.server.python(SOON)
    watch = host.start("watch")
    host.server.python("from flows.hot_backup import hot_backup; hot_backup.fn('main')")
    host.server.python(FOUR_DAYS_OLDER)
    nightly = host.ask("deployments/name/automated-backup/automated-backup")["id"]
    off = {"start_time": f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}", "end_time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}  # fmt: skip
    host.ask(f"deployments/{nightly}/schedule", off)
    found = host.ask("flow_runs/filter", {"flow_runs": {"expected_start_time": {"before_": off["end_time"]}}})
    # The hourly look may have come due meanwhile: it is none of theirs.
    missed = [
        each["id"]
        for each in found
        if each["parameters"]["installation"] == "main" and each["deployment_id"] == nightly
    ]
    assert len(missed) == 3
    for each in found:
        if each["id"] not in (*missed, watch):  # the office has no stack
            ask(host.server, f"flow_runs/{each['id']}", method="DELETE")

    wait_until(lambda: "watch of main is Late" in " ".join(host.heard.titles()), 90, "nobody was told of a late run")
    host.heard.arrived.clear()
    request.getfixturevalue("worker")
    ended = [wait_for_run(host.server, each, timeout_seconds=240) for each in missed]
    verification = wait_for_run(host.server, lambda each: each["name"].startswith("verification of "))

    assert [(each["state"], each["name"]) for each in ended] == [("COMPLETED", "automated hot backup of main")] * 3
    assert len(list(host.repository.glob("*.tar.gz"))) == 2
    assert verification["state"] == "COMPLETED", verification["message"]
    assert wait_for_run(host.server, watch)["state"] == "COMPLETED"
    titles = [title for title in host.heard.titles() if "overdue" in title]
    assert titles == ["mailarchiver-backup: overdue of main", "mailarchiver-backup: overdue of main is over"]


def test_a_run_through_the_api_completes_and_verification_and_copies_follow_by_event(host: Host, worker: None) -> None:
    """Issue 2, point 9: triggered through the API; the event of its end starts the verification, and the copies of both."""
    before = {each["id"] for each in runs(host.server)}
    run = wait_for_run(host.server, host.start("hot-backup"))

    assert (run["state"], run["name"]) == ("COMPLETED", "hot backup of main")
    verification = wait_for_run(
        host.server, lambda each: each["id"] not in before and each["name"].startswith("verification of mailarchiver-backup-")
    )  # fmt: skip
    assert verification["state"] == "COMPLETED", verification["message"]
    newest = max(host.repository.glob("*.manifest.json"))
    wait_until(
        lambda: (host.copies / newest.name).read_bytes() == newest.read_bytes(), 60, "the verdict was not copied"
    )
    copies = wait_for_run(host.server, lambda each: each["id"] not in before and each["name"] == "copies of main")
    assert copies["state"] == "COMPLETED", copies["message"]
    logs = host.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [verification["id"]]}}})
    # What the layers below Prefect say stands on the run's page too.
    assert any(each["name"].startswith("tasks.") and each["level"] == logging.INFO for each in logs), logs


def test_a_backup_that_only_a_target_has_is_proven_and_restored_by_the_worker(
    host: Host, worker: None, tmp_path: Path
) -> None:
    """As `--from TARGET` on the terminal: the target is chosen by its name, and the archive is streamed from there."""
    archives = list(host.repository.glob("*.tar.gz"))
    for each in archives:
        each.rename(tmp_path / each.name)
    try:
        verification = host.start("restore-verification", from_target="disk")
        restore = host.start("guided-restore", from_target="disk", confirm="main")
        for run in (verification, restore):
            ended = wait_for_run(host.server, run, timeout_seconds=240)
            assert ended["state"] == "COMPLETED", ended["message"]
        assert not list(host.repository.glob("*.tar.gz"))
    finally:
        for each in archives:
            (tmp_path / each.name).rename(each)
    host.server.python("from flows.rollback import commit; commit.fn('main', 'main')")


def test_a_long_step_shows_its_progress_and_a_run_its_reports(host: Host, worker: None) -> None:
    """What a person opens: how far a step is, what a backup is, why each is kept, and pictures of them, in the page itself."""
    host.server.python(LONG_STEP)
    # A run that an event asked for may have looked last while the test before this one had put the archives away.
    host.server.python("from flows.watch import watch; watch.fn('main', alarm=False)")
    made = sorted(host.ask("artifacts/filter", {}), key=lambda each: str(each["created"]))
    found = {each["key"] or each["description"]: each for each in made}  # the newest of each

    assert found["dump of a long step"]["type"] == "progress"
    assert found["dump of a long step"]["data"] == 100
    assert "| Downtime | none |" in found["backup-main"]["data"]
    assert "| Verdict | **verified** |" in found["verification-main"]["data"]
    assert "the newest" in found["retention-main"]["data"]
    status = found["status-main"]["data"]
    assert "(RTO, measured)" in status
    assert status.count("](data:image/svg+xml;base64,") == 2
    posture = found["posture-main"]["data"]
    assert "| no_off_site_copy | there is no off-site copy" in posture
    assert "| unencrypted | archives are not encrypted | anyone who gets hold of one reads all mail" in posture
    (newest, *_) = json.loads(found["catalogue-main"]["data"])
    assert list(newest)[:5] == ["backup", "verdict", "age", "size", "kept because"]


BAD: dict[str, tuple[str, Any]] = {
    "a path": ("backup", "/etc/passwd"),
    "a way up": ("backup", "../../etc/passwd"),
    "a file beside the worker": ("backup", "prefect.yaml"),
    "an unknown installation": ("installation", "elsewhere"),
    "a path for an installation": ("installation", "../main"),
    "an unknown key": ("directory", "/etc"),
    "an unknown choice": ("method", "rm -rf"),
    "an unknown target": ("target", "elsewhere:bucket"),
    "an unknown target to read from": ("from_target", "elsewhere:bucket"),
}


@pytest.mark.parametrize("deployment", [each["name"] for each in DEPLOYMENTS])
def test_every_deployment_refuses_paths_unknown_installations_and_unknown_keys(host: Host, deployment: str) -> None:
    """The server itself says what is wrong, before there is a run; a known installation is taken."""
    known = host.ask(f"deployments/name/{deployment}/{deployment}")["parameter_openapi_schema"]["properties"]
    assert "installation" in known
    for what, (name, value) in BAD.items():
        if name not in known and name != "directory":
            continue
        with pytest.raises(urllib.error.HTTPError) as caught:
            host.start(deployment, **{"installation": "main", name: value})
        assert caught.value.code == 409, what
        assert (name if name == "directory" else str(value)) in json.loads(caught.value.read())["detail"], what


def test_a_restore_that_may_not_be_is_refused_by_the_run_too(host: Host, worker: None) -> None:
    """Anyone who has the server not look at parameters can still neither name a file nor skip the confirmation."""
    before = host.stack.states()
    cases: list[tuple[str, dict[str, str], str]] = [
        ("sql-dump-restore", {"confirm": "yes"}, "was not confirmed"),
        ("full-restore", {"confirm": "main", "backup": "../../etc/passwd"}, "is a path"),
        ("guided-restore", {"confirm": "main", "backup": "prefect.yaml"}, "is no backup's name"),
        ("rollback", {"installation": "elsewhere", "confirm": "elsewhere"}, "there is no installation 'elsewhere'"),
    ]

    wanted = [
        start_run(host.server, f"{name}/{name}", {"installation": "main", **parameters}, enforce_parameter_schema=False)
        for name, parameters, _ in cases
    ]

    for run, (name, _, reason) in zip(wanted, cases, strict=True):
        ended = wait_for_run(host.server, run)
        assert ended["state"] == "FAILED", name
        assert reason in ended["message"], name
    assert host.stack.states() == before


def test_a_restore_that_nobody_approves_gives_up(host: Host, worker: None) -> None:
    """It waits for as long as the settings say; nothing was stopped, and that nobody answered is kept."""
    before = host.stack.states()

    run = wait_for_run(host.server, host.start("guided-restore"))

    assert run["state"] == "FAILED"
    # The first to notice gives the words: Prefect's service for expired pauses, or the run itself.
    assert re.search("never resumed|nobody approved the restore", run["message"])
    assert host.stack.states() == before

    def kept_approvals() -> list[dict[str, Any]]:
        history = (host.server.place / "state" / "history" / "main.jsonl").read_text().splitlines()
        return [json.loads(line) for line in history if "restore approval" in line]

    # Where the service was first, the run has yet to notice.
    wait_until(kept_approvals, 60, "that nobody answered is not kept")
    kept = kept_approvals()
    assert [(each["outcome"], "refused by nobody (nobody answered" in each["message"]) for each in kept] == [
        ("refused", True)
    ]


def test_an_approval_says_that_the_archive_may_be_foreign_and_bring_code(host: Host, worker: None) -> None:
    """Each of the two words counts for itself; what was restored by both is in quarantine."""
    host.write_settings(office=True, told=True, approval_seconds=120)
    for statement in CODE:
        host.stack.psql(statement)
    archive = archive_of(host.stack, host.repository, dumped(host.stack, "pg_dump"))
    host.stack.psql("DROP TABLE public.bait; DROP FUNCTION public.evil()")
    shutil.rmtree(host.repository / "made")
    name = archive.name.removesuffix(".tar.gz")

    def answered(**words: bool) -> dict[str, Any]:
        run = host.start("guided-restore", backup=name)
        wait_until(lambda: host.ask(f"flow_runs/{run}")["state"]["type"] == "PAUSED", 90, "the run does not ask")
        form = {"decision": "approve", "approved_by": "Ada Lovelace", "confirm": "main", **words}
        assert host.ask(f"flow_runs/{run}/resume", {"run_input": form})["status"] == "ACCEPT"
        return wait_for_run(host.server, run)

    refused = answered(with_code=True)
    assert refused["state"] == "FAILED"
    assert "not known as this installation's own" in refused["message"]
    refused = answered(foreign=True)
    assert refused["state"] == "FAILED"
    assert "brings code" in refused["message"]
    assert host.stack.psql("SELECT to_regclass('public.bait')") == [(None,)]

    restored = answered(foreign=True, with_code=True)
    assert restored["state"] == "COMPLETED", restored["message"]
    assert host.stack.psql("SELECT to_regclass('public.bait')::text") == [("bait",)]
    assert host.stack.psql('SELECT count(*) FROM mail_archiver."MailAccounts" WHERE "IsEnabled"') == [(0,)]
    host.server.python(
        "from flows.rollback import commit, rollback; rollback.fn('main', 'main'); commit.fn('main', 'main')"
    )
    archive.unlink()


def deploy_more(host: Host, place: Path, cron: str) -> None:
    """Deploy with another schedule, and beside it what an older version may have left, and what is somebody else's."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (online,) = [each for each in deployments["deployments"] if each["name"] == "online-backup"]
    online["schedules"] = [
        {
            "slug": "of-before",
            "cron": cron,
            "timezone": "UTC",
            "active": True,
            "parameters": {"installation": "main"},
        }
    ]
    former = {**online, "name": "former-backup", "schedules": []}
    foreign = {**online, "name": "somebody-elses", "schedules": [], "tags": ["theirs"]}
    deployments["deployments"] = [online, former, foreign]
    file = place / "prefect.yaml"
    file.write_text(yaml.safe_dump(deployments))
    host.server.run("--no-prompt", "deploy", "--all", "--prefect-file", str(file))


@pytest.mark.long
def test_the_scheduler_makes_a_run_by_itself(host: Host, worker: None, tmp_path: Path) -> None:
    """Health proves nothing: with an unfit sqlalchemy the server starts and silently schedules nothing.

    In each run of the suite what `serve` starts shows it: tests/browser, and the installed program in test_readme.py.
    """
    before = datetime.now(UTC)
    deploy_more(host, tmp_path, "* * * * *")

    run = wait_for_run(
        host.server, lambda each: each["auto"] and each["name"] == "online backup of main", timeout_seconds=150
    )

    assert run["state"] == "COMPLETED", run["message"]
    assert before < datetime.now(UTC)


def test_what_the_settings_no_longer_have_is_taken_away(host: Host, tmp_path: Path) -> None:
    """What goes: an installation's schedules with their runs, former addresses, older deployments; nothing of others."""
    deploy_more(host, tmp_path, "0 3 1 1 *")
    assert schedules(host)["online-backup"] >= {"of-before"}
    assert {"former-backup", "somebody-elses"} <= names(host)
    assert schedules(host)["automated-backup"] == {"nightly-main", "nightly-office"}
    assert planned(host, "office")
    assert len(blocks(host)) == 2

    host.write_settings(office=False, told=False)
    deploy_installations(host.server)

    assert names(host) == {"somebody-elses", *(each["name"] for each in DEPLOYMENTS)}
    versions = {each["version"] for each in host.ask("deployments/filter", {}) if each["name"] != "somebody-elses"}
    assert versions == {version("mailarchiver-backup")}, "the program's own, whatever repository lies around it"
    assert schedules(host)["automated-backup"] == {"nightly-main"}
    assert all("office" not in slug and slug != "of-before" for slugs in schedules(host).values() for slug in slugs)
    assert planned(host, "office") == []
    wait_until(lambda: planned(host, "main"), 30, "nothing is planned any more")
    assert blocks(host) == []
    automations = [each["name"] for each in host.ask("automations/filter", {})]
    assert "mailarchiver: mark dead runs as crashed" in automations
    assert not [name for name in automations if "tell" in name]
    queues = host.ask("work_pools/mailarchiver/queues/filter", {})
    assert {each["name"]: each["concurrency_limit"] for each in queues} == {
        "backups": 1, "verifications": 1, "copies": 1, "watches": 2, "default": None
    }  # fmt: skip


def names(host: Host) -> set[str]:
    return {each["name"] for each in host.ask("deployments/filter", {})}


def schedules(host: Host) -> dict[str, set[str]]:
    return {
        each["name"]: {schedule["slug"] for schedule in each["schedules"]} for each in host.ask("deployments/filter", {})
    }  # fmt: skip


def planned(host: Host, installation: str) -> list[str]:
    found = host.ask("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})
    return [each["name"] for each in found if each["parameters"].get("installation") == installation]


def blocks(host: Host) -> list[str]:
    return [each["name"] for each in host.ask("block_documents/filter", {}) if "mailarchiver" in (each["name"] or "")]


def test_no_password_reaches_prefect(host: Host) -> None:
    """P12: neither parameters, nor results, nor logs, nor artifacts hold the database's password."""
    password = host.stack.password.encode()
    holding = [path.name for path in host.server.home.rglob("*") if path.is_file() and password in path.read_bytes()]

    assert holding == []
