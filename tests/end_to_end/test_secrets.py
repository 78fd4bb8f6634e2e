"""P12: no password, token, key or row shows up where somebody may look, whatever a run does and however it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deployments.password import AUTH_VARIABLE
from tasks.adapters.archive.repository_marker import MARKER_NAME
from tests.canaries import Seen, open_to_others, watched
from tests.cli import PROGRAM, run_program
from tests.end_to_end.test_verification_finds_lies import in_rows_of
from tests.prefect_server import PrefectServer, prefect_server
from tests.rebuild import rebuilt
from tests.settings import ALL_RISKS, write_settings
from tests.stack.stack import Stack, create_stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]

CANARIES = {
    "database password": "c4nary-database-7d1f93",
    "application password": "c4nary-application-18ce02",
    "OAuth secret": "c4nary-oauth-5b7a61",
    "encryption key": "c4nary-encryption-90fd3c",
    "proxy password": "c4nary-proxy-c2e817",
    "address of alarms": "c4nary-apprise-4460ab",
    "address of pings": "c4nary-ping-e71d58",
    "mailbox password": "c4nary-mailbox-6b25d9",
    "password of Prefect": "c4nary-prefect-a8813e",
    "key of the application": "c4nary-data-protection-f04c77",
}
# The one client of Prefect's, which reads its password there; and what it starts by itself.
PREFECT_CLIENTS = ("prefect", "tests/end_to_end/flows_under_prefect", "multiprocessing", "deployments.server")

FLOWS = """
import json, sys
from flows.automated_backup import automated_backup
from flows.complete_backup import complete_backup
from flows.full_restore import full_restore
from flows.guided_restore import guided_restore
from flows.hot_backup import hot_backup
from flows.online_backup import online_backup
from flows.prune import prune
from flows.restore_verification import restore_verification
from flows.rollback import commit, lift_quarantine, rollback
from flows.sql_dump_restore import sql_dump_restore
from flows.watch import watch
for name, words in json.loads(sys.argv[1]):
    try:
        value = globals()[name](**words)
    except Exception as error:
        print(f"-- {name} {words}: failed: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"-- {name} {words}: succeeded: {str(value)[:100]}", flush=True)
"""


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a stack whose every secret is a canary."""
    made = create_stack(
        tmp_path_factory.mktemp("secrets") / "stack",
        megabytes=1,
        password=CANARIES["database password"],
        application_environment={
            "Authentication__Username": "admin",
            "AUTHENTICATION__PASSWORD": CANARIES["application password"],
            "OAuth__ClientSecret": CANARIES["OAuth secret"],
            "Something__Else": CANARIES["encryption key"],
            "HTTPS_PROXY": f"http://me:{CANARIES['proxy password']}@proxy.example:3128",
        },
    )
    made.psql('UPDATE mail_archiver."MailAccounts" SET "Password" = %s', [CANARIES["mailbox password"]])
    key = next((made.directory / "data-protection-keys").glob("*.xml"))
    key.write_text(key.read_text().replace("<value>", f"<value>{CANARIES['key of the application']}"))
    yield made
    made.destroy()


class Scene:
    """The settings and the places."""

    def __init__(self, stack: Stack, place: Path) -> None:
        self.stack, self.place = stack, place
        self.repository, self.log, self.metrics = place / "backups", place / "log" / "backup.log", place / "metrics"
        self.settings = place / "settings.yaml"
        self.want()

    def want(self, **more: Any) -> None:
        """Write the settings."""
        wanted = {
            "directory": self.stack.directory, "repository": self.repository, "log_file": self.log, "metrics_directory": self.metrics,
            # Nobody listens there: what cannot be sent is logged, and must not take the address along.
            "notifications": [
                {"kind": "apprise", "url": f"json://127.0.0.1:9/{CANARIES['address of alarms']}", "events": ["success", "failure", "overdue"]},
                {"kind": "ping", "url": f"http://127.0.0.1:9/{CANARIES['address of pings']}"},
            ],
            "accept_risks": ALL_RISKS, **more,
        }  # fmt: skip
        write_settings(self.settings, {"main": wanted})

    def command(self, seen: Seen, *words: str, code: int = 0) -> None:
        """Run a command as an operator does, and remember what it says."""
        exit_code, stdout, stderr = run_program(
            [PROGRAM, *words, "--installation", "main", "--settings", str(self.settings), "--verbose"]
        )
        seen.add(stdout, f"the answer of {words}")
        seen.add(stderr, f"what {words} said")
        assert exit_code == code, f"{words}: {stdout[-1500:]} {stderr[-3000:]}"

    def backups(self, method: str) -> list[str]:
        """Name the backups of a method, oldest first."""
        records = [json.loads(path.read_text()) for path in sorted(self.repository.glob("*.manifest.json"))]
        return [record["manifest"]["name"] for record in records if record["manifest"]["method"] == method]

    def damage(self, name: str) -> None:
        """Change a byte in the middle of an archive."""
        (path,) = self.repository.glob(f"{name}.tar.*")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.fixture(scope="module")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(stack, tmp_path_factory.mktemp("scene"))


def test_no_secret_is_left_by_a_command(scene: Scene, state_directory: Path, tmp_path: Path) -> None:
    """On the terminal, with --verbose; with a row in the dump that PostgreSQL stumbles over, and with a password that is wrong."""
    before = os.umask(0)
    try:
        with watched(scene.stack) as seen:
            for words in (
                ["backup", "hot"], ["backup", "auto"], ["doctor"], ["list"], ["check", "latest"],
                ["restore", "latest", "--yes"], ["rollback", "--yes"], ["commit", "--yes"], ["recover"],
            ):  # fmt: skip
                scene.command(seen, *words)

            # A row that lacks a column: PostgreSQL would show it whole, with the password.
            archive = scene.repository / f"{scene.backups('hot')[-1]}.tar.gz"
            lie = rebuilt(
                archive,
                tmp_path / "lies",
                lambda name, content: (
                    in_rows_of(content, b'mail_archiver."MailAccounts"', lambda rows: rows.replace(b"\t", b" ", 1))
                    if name == "database.sql"
                    else content
                ),
            )
            scene.command(seen, "verify", str(lie), code=1)
            scene.command(seen, "restore", str(lie), "--yes", "--foreign", code=1)
            scene.command(seen, "adopt", str(lie), "--yes", code=1)

            scene.stack.psql("ALTER ROLE mailuser PASSWORD 'another'")
            try:
                scene.command(seen, "backup", "hot", code=1)
                scene.command(seen, "status", "--alarm", code=1)
            finally:
                with psycopg.connect(scene.stack.dsn("postgres", password="another"), autocommit=True) as connection:
                    connection.execute(f"ALTER ROLE mailuser PASSWORD '{scene.stack.password}'")
    finally:
        os.umask(before)
    assert seen.looked > 50
    assert seen.containers, "no container but production's was seen: this test proves nothing of staging"
    see_that_nothing_leaked(scene, seen, state_directory)
    shutil.rmtree(tmp_path / "lies")


@pytest.fixture
def server(scene: Scene, state_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    """Lend Prefect's server, whose password is a canary."""
    with prefect_server(scene.place, settings_file=scene.settings, state=state_directory) as running:
        yield running


@pytest.fixture
def known_password(state_directory: Path) -> str:
    """Have the server's password be known before it starts."""
    secret = f"operator:{CANARIES['password of Prefect']}"
    place = state_directory / "prefect"
    place.mkdir(mode=0o700)
    (place / "password.json").write_text(json.dumps({"auth_string": secret}))
    (place / "password.json").chmod(0o600)
    return secret


def test_no_secret_is_left_by_a_flow_under_prefect(
    scene: Scene, state_directory: Path, known_password: str, server: PrefectServer, tmp_path: Path
) -> None:
    """Every flow succeeds once and fails once; logs, states, artifacts and events go to Prefect's database."""
    assert server.environment[AUTH_VARIABLE] == known_password
    main, confirmed = {"installation": "main"}, {"installation": "main", "confirm": "main"}
    with watched(scene.stack, exempt=PREFECT_CLIENTS) as seen:
        told = run_flows(scene, server, seen, [
            ("automated_backup", main), ("online_backup", main), ("complete_backup", main), ("restore_verification", main), ("watch", main), ("prune", main),
        ])  # fmt: skip
        assert told == ["succeeded"] * 6
        scene.want(minimum_free_bytes=10**15)
        backups = ("automated_backup", "hot_backup", "online_backup", "complete_backup")
        assert run_flows(scene, server, seen, [(name, main) for name in backups]) == ["failed"] * 4
        scene.want()

        hot, online = scene.backups("hot")[-1], scene.backups("online")[-1]
        complete = scene.backups("complete")[-1]
        told = run_flows(scene, server, seen, [
            ("sql_dump_restore", {**confirmed, "backup": hot, "quarantine": True}), ("lift_quarantine", main), ("rollback", confirmed), ("commit", confirmed),
            ("guided_restore", {**confirmed, "backup": online}), ("commit", confirmed), ("rollback", confirmed),
        ])  # fmt: skip
        assert told == ["succeeded"] * 6 + ["failed"]

        scene.damage(hot)
        scene.damage(complete)
        told = run_flows(scene, server, seen, [
            *((name, {**confirmed, "backup": hot}) for name in ("sql_dump_restore", "guided_restore")),
            ("full_restore", {**confirmed, "backup": complete}), ("restore_verification", {**main, "backup": hot}),
        ])  # fmt: skip
        assert told == ["failed"] * 4

        planted = f"{scene.stack.database}_before_20250102_030405"
        scene.stack.psql(f'CREATE DATABASE "{planted}"', database="postgres")
        scene.stack.psql(
            f'COMMENT ON DATABASE "{planted}" IS \'mailarchiver-backup kept {{"of": 1}}\'', database="postgres"
        )
        (scene.repository / MARKER_NAME).rename(tmp_path / "marker")
        shutil.rmtree(scene.metrics)
        scene.metrics.write_text("no directory")
        told = run_flows(scene, server, seen, [("watch", main), ("prune", main), ("commit", confirmed)])
        assert told[1:] == ["failed"] * 2
        scene.metrics.unlink()
    assert seen.looked > 50
    assert seen.containers
    seen.add_files(server.home, scene.place / "server.log")
    see_that_nothing_leaked(scene, seen, state_directory, known_password)


def run_flows(scene: Scene, server: PrefectServer, seen: Seen, flows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Run flows one after the other in a process that tells the server of them; return how each ended."""
    done = subprocess.run(
        [sys.executable, "-c", f"# {PREFECT_CLIENTS[1]}{FLOWS}", json.dumps(flows)],
        env=server.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=False, umask=0,
    )  # fmt: skip
    seen.add(done.stdout, "stdout of the flows")
    seen.add(done.stderr, "the flows' log")
    ends = [line for line in done.stdout.splitlines() if line.startswith("-- ")]
    assert len(ends) == len(flows), done.stdout + done.stderr[-3000:]
    print("\n".join(ends))
    return [line.split("}: ", 1)[1].partition(":")[0] for line in ends]


def see_that_nothing_leaked(scene: Scene, seen: Seen, state_directory: Path, *kept: str) -> None:
    """Look at all that is left, in its place or said."""
    for service in ("postgres", "mailarchive-app"):
        seen.add(scene.stack.container(service).logs(), f"the log of {service}")
    # What is there to hold a secret: the password of Prefect's server, and the archives themselves.
    seen.add_files(
        state_directory, scene.repository, scene.log.parent, scene.metrics, without=["prefect/password.json", ".tar."]
    )
    assert seen.hits(CANARIES) == []
    # An exporter, who is another user, reads the metrics. What Prefect makes in its home, which nobody else enters, has
    # the mask that `serve` sets.
    home = state_directory / "prefect" / "home"
    assert open_to_others(state_directory, scene.repository, scene.log.parent, without=[f"{home}/"]) == []
    assert list(Path("/dev/shm").glob("*mailarchiver*")) == []
