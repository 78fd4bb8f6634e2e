"""P12, P23: of what encryption and copies need to keep secret nothing shows up anywhere, on the terminal and under Prefect."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tasks.adapters.host.memory_place import MEMORY_VARIABLE
from tests.canaries import Seen, watched
from tests.cli import PROGRAM, run_program
from tests.plaintext import Watch, watching
from tests.prefect_server import (
    PrefectServer,
    deploy_installations,
    prefect_server,
    prefect_worker,
    runs,
    start_run,
    wait_for_run,
)
from tests.settings import ALL_RISKS, write_settings
from tests.stack.stack import Stack, create_stack, wait_until
from tests.targets import Server, obscured, server, write_config

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

# Another than that of the other tests' servers, whose command lines show it beside this test.
PASSWORD = "c4nary-sftp-password-e0d27a"
S3_SECRET, WRONG = "c4nary-s3-secret-4b1f9e07", "c4nary-wrong-password-77c2"
# Where the password of a target's server is at home: in the environment of that server, which is no part of ours.
SERVERS = ("serve\0sftp",)
PREFECT_CLIENTS = ("prefect", "multiprocessing", "deployments.server", "deployments.worker", "deployments.flow_process")


@dataclass(frozen=True)
class Scene:
    """A stack that is backed up encrypted and copied to two targets, and every secret of these."""

    stack: Stack
    place: Path
    away: Server
    bucket: Server
    identity: str
    keys: Watch

    def configure(self, password: str = PASSWORD) -> str:
        """Write rclone's configuration; return the password as it stands in it."""
        kept = obscured(password)
        bucket = {**self.bucket.section, "secret_access_key": S3_SECRET}
        write_config(self.place / "rclone.conf", {"away": {**self.away.section, "pass": kept}, "bucket": bucket})
        return kept

    def command(self, seen: Seen, *words: str, code: int = 0) -> Any:
        """Run a command, and remember what it says."""
        settings = ("--settings", str(self.place / "settings.yaml"), "--verbose", "--json")
        exit_code, stdout, stderr = run_program([PROGRAM, *words, *settings])
        seen.add(stdout, f"the answer of {words}")
        seen.add(stderr, f"what {words} said")
        assert exit_code == code, f"{words}: {stdout[-1500:]} {stderr[-3000:]}"
        return json.loads(stdout)

    def records(self) -> list[dict[str, Any]]:
        """Read the records at the first target, oldest first; a first one that is being written there is none yet."""
        found = []
        for each in sorted((self.away.files / "bucket").glob("*.manifest.json")):
            with suppress(json.JSONDecodeError):
                found.append(json.loads(each.read_text()))
        return found


@pytest.fixture(scope="module")
def scene(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("scene")
    stack = create_stack(place / "stack", megabytes=1)
    away, bucket = server(place, "sftp"), server(place, "s3")
    away.environment = {"RCLONE_USER": away.section["user"], "RCLONE_PASS": PASSWORD}
    for each, secret in ((away, "--user"), (bucket, "--auth-key")):
        each.command = each.command[: each.command.index(secret)]
    key = str(pyrage.x25519.Identity.generate())
    (place / "identity").write_text(f"{key}\n")
    (place / "identity").chmod(0o600)
    main = {
        "directory": stack.directory, "repository": place / "backups", "log_file": place / "log" / "backup.log", "metrics_directory": place / "metrics",
        "encryption": {"recipients": [str(pyrage.x25519.Identity.from_str(key).to_public())]}, "accept_risks": ALL_RISKS,
        "rclone_config": place / "rclone.conf",
        "copies": [{"name": "away", "remote": "away:bucket", "part_bytes": 2**20}, {"name": "bucket", "remote": "bucket:bucket"}],
    }  # fmt: skip
    write_settings(place / "settings.yaml", {"main": main})
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory, pytest.MonkeyPatch.context() as patch:
        patch.setenv(MEMORY_VARIABLE, f"{memory}/keys")
        with watching(list, memory=Path(memory) / "keys") as keys:
            try:
                away.start()
                bucket.start()
                made = Scene(stack, place, away, bucket, key, keys)
                made.configure()
                yield made
            finally:
                away.kill()
                bucket.kill()
                stack.destroy()


def see_that_nothing_leaked(scene: Scene, seen: Seen, passwords: list[str], *places: Path) -> None:
    """Look at all that was seen, and at all that is left but the archives and the files whose purpose is to keep a secret."""
    at_home = [
        "prefect/password.json",
        ".tar.",
        "rclone.conf",
        str(scene.place / "identity"),
        str(scene.stack.directory),
    ]
    seen.add_files(scene.place, *places, without=at_home)
    canaries = {
        "the password of a target": PASSWORD, "a wrong password": WRONG, "the secret of a bucket": S3_SECRET, "the recovery key": scene.identity,
        **{f"the password in rclone's form, {number}": each for number, each in enumerate(passwords)},
        **{name: key for key, name in scene.keys.keys.items()},
    }  # fmt: skip
    assert scene.keys.keys, "no one-time key was seen: this test proves nothing of them"
    assert seen.looked > 20
    assert seen.hits(canaries) == []


def test_no_secret_of_keys_and_targets_is_left_by_a_command(scene: Scene, state_directory: Path) -> None:
    """Encrypted, proven, copied, read from a target, restored with the key; and refused with a wrong password."""
    key = ("--identity", str(scene.place / "identity"))
    with watched(scene.stack, exempt=SERVERS) as seen:
        scene.command(seen, "backup", "auto")
        scene.command(seen, "list", "--from", "bucket", *key)
        scene.command(seen, "restore", "latest", "--from", "away", "--yes", "--no-quarantine", *key)
        scene.command(seen, "commit", "--yes")
        passwords = [scene.configure(WRONG), ""]
        scene.command(seen, "copy", code=1)
        passwords[1] = scene.configure()
    see_that_nothing_leaked(scene, seen, passwords, state_directory)


@pytest.fixture
def prefect(scene: Scene, state_directory: Path) -> Iterator[PrefectServer]:
    """Lend Prefect's server with all deployments, and a worker."""
    place = scene.place / "prefect"
    place.mkdir()
    with prefect_server(place, settings_file=scene.place / "settings.yaml", state=state_directory) as running:
        deploy_installations(running)
        with prefect_worker(running, place):
            yield running


def test_a_run_of_a_worker_proves_a_sealed_backup_and_no_secret_is_left(
    scene: Scene, state_directory: Path, prefect: PrefectServer
) -> None:
    """The worker holds no key: by the event of the backup it is proven with its one-time key, and copied with its verdict."""
    passwords = [scene.configure()]
    with watched(scene.stack, exempt=(*SERVERS, *PREFECT_CLIENTS)) as seen:
        backup = wait_for_run(prefect, start_run(prefect, "hot-backup/hot-backup", {"installation": "main"}))
        assert backup["state"] == "COMPLETED", backup["message"]
        proven = wait_for_run(prefect, lambda each: each["name"].startswith("verification of "), timeout_seconds=240)
        assert proven["state"] == "COMPLETED", proven["message"]
        name = proven["name"].removeprefix("verification of ").partition(" ")[0].partition(".")[0]

        def verdict_there() -> bool:
            return any(each["manifest"]["name"] == name and each.get("verification") for each in scene.records())

        wait_until(verdict_there, 120, "the verdict was not copied")
        verdict = scene.records()[-1]["verification"]
        assert (verdict["verdict"], verdict["opened_with"]) == ("verified", "verification key")
        wait_until(
            lambda: all(each["state"] != "RUNNING" for each in runs(prefect)), 120, "a run of copies does not end"
        )
    seen.add_files(prefect.home)
    see_that_nothing_leaked(scene, seen, passwords, state_directory)
