"""Copies that nobody can remove or change: S3 object lock against a server that keeps it, and what is told of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest

from tasks.adapters.copies import rclone
from tasks.adapters.copies.target_state import read_target_state
from tasks.core.policy.settings import Retention
from tasks.oversight.copies import CopiesFailed
from tasks.oversight.status import read_status
from tasks.run.config import InstallationConfig
from tests.integration.copying import copy, copying_to, night
from tests.links import link_to
from tests.prefect_server import free_port, kill_group
from tests.stack.stack import wait_until
from tests.targets import RCLONE, write_config

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run an S3 server with two buckets, of which `locked` has object lock; give its section of rclone's configuration."""
    place, port = tmp_path_factory.mktemp("moto"), free_port()
    address = f"http://127.0.0.1:{port}"
    section = {
        "type": "s3", "provider": "Other", "access_key_id": "key", "secret_access_key": "secret", "endpoint": address, "region": "us-east-1"
    }  # fmt: skip
    with (place / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip
    try:
        wait_until(lambda: urlopen(address, timeout=2), 60, "the S3 server does not answer")
        config = write_config(place / "rclone.conf", {"away": section})
        for bucket, options in (("locked", ["--s3-bucket-object-lock-enabled"]), ("plain", [])):
            subprocess.run([RCLONE, "--config", str(config), "mkdir", f"away:{bucket}", *options], check=True)
        # Unlike S3, moto wants this of a copy too, which has no body.
        with link_to(port, copies_carry={"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}) as link:
            yield section | {"endpoint": link.address}
    finally:
        kill_group(server)


def test_a_locked_copy_is_locked_in_all_its_parts_and_says_so(s3: dict[str, str], tmp_path: Path) -> None:
    """The lock is what the server answers, not what was asked; retention asks for no removal before its end."""
    config = copying_to(
        tmp_path, "away:locked/main", sections={"away": s3}, lock_days=20, retention={"keep_last": 1, "minimum_verified": 1}, off_site=True
    )  # fmt: skip
    first = night(config, 3, large=True)
    copy(config)
    second = night(config, 2)
    (done,) = copy(config)

    assert done.error is None
    assert done.pruned is not None
    assert done.pruned.removed == ()
    assert any(each.reasons == ("it is locked there",) for each in done.pruned.plan.decisions)
    copies = read_target_state("main", "a").copies
    until = datetime.now(UTC) + timedelta(days=20)
    for each in (first, second):
        locked_until = copies[each.manifest.name].locked_until
        assert locked_until is not None
        assert abs(locked_until - until) < timedelta(minutes=10)
    remote = rclone.reach("a", "away:locked/main", config.settings.rclone_config)
    for file in rclone.list_files(remote):
        if file.name.startswith("mailarchiver"):
            assert rclone.describe(remote, file.name).locked_until is not None, file.name
    assert str(read_status(config, now=datetime.now(UTC)).copy_counts) == "2-2-1-1-0"


def test_a_bucket_that_cannot_lock_takes_no_copy_that_is_to_be_locked(s3: dict[str, str], tmp_path: Path) -> None:
    config = copying_to(tmp_path, "away:plain/main", sections={"away": s3}, lock_days=20)
    night(config)

    with pytest.raises(CopiesFailed, match="cannot lock copies: the bucket has no object lock"):
        copy(config)


def test_an_old_lock_is_not_taken_for_one_that_holds(s3: dict[str, str], tmp_path: Path) -> None:
    """Without lock_days nothing is locked, although the bucket could."""
    config = copying_to(tmp_path, "away:locked/other", sections={"away": s3})
    night(config)
    copy(config)

    assert str(read_status(config, now=datetime.now(UTC)).copy_counts) == "2-2-0-0-0"


def locks_at(config: InstallationConfig, place: str) -> dict[str, datetime | None]:
    """Ask the server itself until when it keeps each file of ours."""
    remote = rclone.reach("a", place, config.settings.rclone_config)
    files = [each.name for each in rclone.list_files(remote) if each.name.startswith("mailarchiver")]
    return {name: rclone.describe(remote, name).locked_until for name in files}


def test_a_lock_runs_until_retention_lets_the_copy_go(s3: dict[str, str], tmp_path: Path) -> None:
    """Not for the days of `lock_days` alone, which are the least."""
    place = "away:locked/until"
    config = copying_to(tmp_path, place, sections={"away": s3}, lock_days=2, retention={"keep_days": 30})
    made = night(config, 1, large=True)
    (done,) = copy(config)

    until = made.manifest.created_at + timedelta(days=30)
    assert set(locks_at(config, place).values()) == {until}
    assert done.copied.locked == ((made.manifest.name, until),)
    assert done.report.told["locked"] == {made.manifest.name: until.isoformat()}


def test_what_is_kept_longer_is_locked_longer_by_a_later_run_and_nothing_is_sent_for_it(
    s3: dict[str, str], tmp_path: Path
) -> None:
    """A longer retention, and a copy from before there was a lock: each file's lock is made longer where it is, none shorter."""
    place = "away:locked/longer"
    open_one = copying_to(tmp_path, place, sections={"away": s3}, retention={"keep_days": 30})
    unlocked = night(open_one, 3, large=True)
    copy(open_one)

    def wanting(keep_days: int) -> InstallationConfig:
        changes = {"lock_days": 2, "retention": Retention(keep_days=keep_days)}
        (target,) = open_one.settings.copies
        settings = open_one.settings.model_copy(update={"copies": (target.model_copy(update=changes),)})
        return replace(open_one, settings=settings)

    locked = night(open_one, 1, large=True)
    for keep_days, extended in ((30, [unlocked]), (60, [unlocked, locked]), (10, [])):
        (done,) = copy(wanting(keep_days))
        assert done.error is None
        assert list(done.copied.lock_extended) == [each.manifest.name for each in extended]
        assert done.copied.sent_bytes == (locked.bytes if keep_days == 30 else 0)
        longest = max(keep_days, 60 if keep_days == 10 else 0)
        for each in (unlocked, locked):
            until = each.manifest.created_at + timedelta(days=longest)
            found = {name: end for name, end in locks_at(open_one, place).items() if each.manifest.name in name}
            assert found == dict.fromkeys(found, until)
            assert len(found) >= 3
            assert read_target_state("main", "a").copies[each.manifest.name].locked_until == until


def test_a_lock_that_the_target_does_not_make_longer_is_a_failure(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answer is what counts: here the request never reaches it."""
    config = copying_to(tmp_path, "away:locked/not", sections={"away": s3}, retention={"keep_days": 30})
    made = night(config, 1)
    copy(config)
    (target,) = config.settings.copies
    settings = config.settings.model_copy(update={"copies": (target.model_copy(update={"lock_days": 2}),)})
    monkeypatch.setattr("tasks.adapters.copies.locking.lock_longer", lambda *_: None)
    with pytest.raises(CopiesFailed, match=f"{made.manifest.name}.* has no lock, and was to be locked until"):
        copy(replace(config, settings=settings))
