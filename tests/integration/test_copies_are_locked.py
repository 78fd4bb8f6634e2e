"""Copies that nobody can remove or change: S3 object lock against a server that keeps it, and what is told of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest

from tasks.adapters.copies import rclone
from tasks.adapters.copies.target_state import read_target_state
from tasks.oversight.copies import CopiesFailed
from tasks.oversight.status import read_status
from tests.integration.copying import copy, copying_to, night
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
        yield section
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
    assert str(read_status(config, now=datetime.now(UTC)).standing) == "2-2-1-1-0"


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

    assert str(read_status(config, now=datetime.now(UTC)).standing) == "2-2-0-0-0"
