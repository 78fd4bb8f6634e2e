"""What goes wrong with copies is told in words, shows no secret, and never harms the backup that is here."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.adapters.archive.repository import list_backups
from tasks.adapters.copies import rclone
from tasks.adapters.copies.target_state import copying_lock, read_target_state, write_target_state
from tasks.adapters.outbox.history_file import read_history
from tasks.core.errors import Busy, Refused, UsageError
from tasks.core.policy.settings import CopyTarget
from tasks.oversight.copies import CopiesFailed
from tasks.oversight.status import read_status
from tasks.run.config import InstallationConfig
from tests.integration.archives import back_up, make_archive
from tests.integration.copying import MIB, copy, copying_to, night
from tests.stack.stack import wait_until
from tests.targets import PASSWORD, Server, obscured, serving

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served"), "sftp") as server:
        yield server


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """Give a directory that stands for a mounted disk."""
    place = tmp_path / "stick"
    place.mkdir()
    return place


def failure(config: InstallationConfig) -> CopiesFailed:
    with pytest.raises(CopiesFailed) as failed:
        copy(config)
    return failed.value


def problems(config: InstallationConfig) -> list[str]:
    return [f"{each.kind}: {each.text}" for each in read_status(config, now=datetime.now(UTC)).problems]


def test_a_wrong_password_is_told_without_it_and_keeps_no_other_target_from_its_copies(
    sftp: Server, stick: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, since waiting cures nothing; and the failed run is remembered."""
    wrong = sftp.section | {"pass": obscured(f"{PASSWORD}-not")}
    config = copying_to(tmp_path, "away:bucket", str(stick), sections={"away": wrong})
    made = night(config)
    with caplog.at_level(logging.DEBUG):
        failed = failure(config)

    assert "target a refuses us" in failed.message
    assert "user, password and rights" in failed.hint
    told = f"{failed}{caplog.text}{[each.message for each in read_history('main')]}{problems(config)}"
    assert PASSWORD not in told
    assert wrong["pass"] not in told
    assert any("copies: target a refuses us" in each for each in problems(config))
    assert [each.outcome for each in read_history("main") if each.run == "copy"] == ["failed"]
    assert failed.runs[1].copied.sent == (made.manifest.name,)
    assert (stick / made.file).read_bytes() == (config.repository / made.file).read_bytes()


def test_a_full_target_is_told_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """What has arrived is not sent again; the backup here is as it was."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=False).returncode != 0:
        pytest.skip("needs to mount a small file system")
    try:
        config = copying_to(tmp_path, str(small), sections={})
        made = night(config, large=True)
        assert "target a is full" in failure(config).message
        assert len(list_backups(config.repository)) == 1
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        (again,) = copy(config)
        assert again.copied.sent_bytes < made.bytes
        assert (
            b"".join(each.read_bytes() for each in sorted(small.glob("*.part-*")))
            == (config.repository / made.file).read_bytes()
        )
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_only_authentic_own_backups_go(stick: Path, tmp_path: Path) -> None:
    config = copying_to(tmp_path, str(stick), sections={})
    own = night(config)
    make_archive(config.repository)  # unsigned
    (done,) = copy(config)

    assert done.copied.sent == (own.manifest.name,)
    assert sorted(
        each.name for each in stick.iterdir() if "backup-" in each.name and not each.name.startswith(".")
    ) == sorted([own.file, f"{own.manifest.name}.manifest.json"])


def test_an_archive_that_was_altered_here_never_becomes_a_copy(stick: Path, tmp_path: Path) -> None:
    """Its bytes are hashed as they go; it keeps no other backup from its copy."""
    config = copying_to(tmp_path, str(stick), sections={})
    sound, made = night(config, 1), night(config, large=True)
    path = config.repository / made.file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    failed = failure(config)
    assert "is not what its record says" in failed.message
    assert failed.runs[0].copied.sent == (sound.manifest.name,)
    assert list(stick.glob(f"{made.manifest.name}*")) == []
    assert any("copies:" in each and "is not what its record says" in each for each in problems(config))


def test_anothers_backup_of_the_same_name_is_not_overwritten(
    stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts that back up in the same second, to one directory: the later copy is refused, and told."""
    config = copying_to(tmp_path, str(stick), sections={})
    made = night(config)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "state").mkdir(parents=True, mode=0o700)
    with monkeypatch.context() as other_host:
        other_host.setenv("MAILARCHIVER_BACKUP_STATE", str(elsewhere / "state"))
        other = copying_to(elsewhere, str(stick), sections={})
        theirs = back_up(other, made.manifest.created_at, dump=b"-- of another host\n")
        copy(other)
    assert theirs.file == made.file
    before = {each.name: each.read_bytes() for each in stick.iterdir()}

    assert "that is another's" in failure(config).message
    assert {each.name: each.read_bytes() for each in stick.iterdir()} == before


def test_a_disk_that_is_not_mounted_gets_no_copies(stick: Path, tmp_path: Path) -> None:
    """Neither a directory that is gone, nor the empty one below a mount; `--accept` takes what was replaced on purpose."""
    config = copying_to(tmp_path, str(stick), sections={})
    made = night(config)
    copy(config)
    stick.rename(tmp_path / "unplugged")
    assert f"there is no directory {stick}" in failure(config).message

    stick.mkdir()
    assert "is not the one that copies went to before" in failure(config).message
    assert list(stick.iterdir()) == []
    (accepted,) = copy(config, accept=True)
    assert accepted.copied.sent == (made.manifest.name,)
    assert copy(config)[0].copied.sent == ()


def test_copies_that_vanish_are_sent_again_or_missed(stick: Path, tmp_path: Path) -> None:
    """One that the repository still has goes anew; for one that it has no more the alarm is raised, until somebody accepts it."""
    config = copying_to(tmp_path, str(stick), sections={}, retention={"keep_days": 90})
    old, new = night(config, 9), night(config, 1)
    copy(config)
    for each in config.repository.glob(f"{old.manifest.name}*"):
        each.unlink()
    for each in stick.glob("mailarchiver-backup-*"):
        each.unlink()
    (again,) = copy(config)

    assert again.copied.sent == (new.manifest.name,)
    assert again.copied.notes == (f"sent again, for they were missing or damaged there: {new.manifest.name}",)
    assert any(each.startswith(f"copies: copies of {old.manifest.name} are missing") for each in problems(config))
    copy(config, accept=True)
    assert not any("are missing" in each for each in problems(config))


def test_a_flipped_byte_at_a_target_is_found_by_reading_back_and_mended(stick: Path, tmp_path: Path) -> None:
    config = copying_to(tmp_path, str(stick), sections={}, read_back_days=7)
    made = night(config, 1)
    copy(config)
    there = stick / made.file
    content = bytearray(there.read_bytes())
    content[len(content) // 2] ^= 1
    there.write_bytes(content)
    assert copy(config)[0].read_back.damaged == (), "it is not due yet"

    state = read_target_state("main", "a")
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    entry = state.copies[made.manifest.name].model_copy(update={"copied_at": long_ago})
    write_target_state("main", "a", state.with_copy(made.manifest.name, entry))
    assert copy(config)[0].read_back.damaged == (made.manifest.name,)
    assert any("damaged at target a" in each for each in problems(config))
    (mended,) = copy(config)
    assert mended.copied.sent == (made.manifest.name,)
    assert there.read_bytes() == (config.repository / made.file).read_bytes()
    assert not any("damaged" in each for each in problems(config))


def test_each_target_has_its_own_retention_and_nothing_goes_twice(stick: Path, tmp_path: Path) -> None:
    """The repository keeps three here; the stick keeps one verified, and what went there is not sent again."""
    config = copying_to(tmp_path, str(stick), sections={}, retention={"keep_last": 1, "minimum_verified": 1})
    first = night(config, 3)
    copy(config)
    second = night(config, 2)
    (done,) = copy(config)

    assert (done.copied.sent, done.pruned and done.pruned.removed) == ((second.manifest.name,), (first.manifest.name,))
    assert copy(config)[0].copied.sent == ()
    assert not list(stick.glob(f"{first.manifest.name}*"))
    assert not any("missing" in each for each in problems(config))


def test_a_target_that_refuses_to_remove_is_told_and_no_failure(stick: Path, tmp_path: Path) -> None:
    """Append-only: what retention would remove stays, and the report says why."""
    config = copying_to(tmp_path, str(stick), sections={}, retention={"keep_last": 1, "minimum_verified": 1})
    first = night(config, 3)
    copy(config)
    night(config, 2)
    if subprocess.run(["chattr", "+a", str(stick)], check=False, capture_output=True).returncode != 0:
        pytest.skip("this file system has no append-only directories")
    try:
        (done,) = copy(config)
    finally:
        with suppress(OSError):
            subprocess.run(["chattr", "-a", str(stick)], check=True)

    assert done.pruned is not None
    assert "target a refuses" in done.pruned.refused
    assert done.error is None
    assert (stick / first.file).exists()
    status = read_status(config, now=datetime.now(UTC))
    assert any("keeps what retention would remove" in each for each in status.notes)
    assert status.copy_counts is not None
    assert status.copy_counts.immutable == 1


def test_rclones_configuration_must_be_ours_alone(sftp: Server, tmp_path: Path) -> None:
    config = copying_to(tmp_path, "away:bucket", sections={"away": sftp.section})
    night(config)
    config.settings.rclone_config.chmod(0o644)
    assert "others may read or write the rclone configuration" in failure(config).message
    config.settings.rclone_config.unlink()
    failed = failure(config)
    assert "there is no rclone configuration" in failed.message
    assert failed.exit_code == 2


def test_what_is_no_target_is_refused(stick: Path, tmp_path: Path) -> None:
    config = copying_to(tmp_path, str(stick), sections={})
    with pytest.raises(UsageError, match="no target 'b'"):
        copy(config, "b")
    with pytest.raises(UsageError, match="has no targets"):
        copy(replace(config, settings=config.settings.model_copy(update={"copies": ()})))
    with copying_lock("main"), pytest.raises(Busy):
        copy(config)


def test_a_target_that_takes_nothing_is_given_up(sftp: Server, tmp_path: Path) -> None:
    """A server that was stopped answers nothing: the wait is bounded."""
    config = copying_to(tmp_path, "away:bucket", sections={"away": sftp.section})
    remote = replace(rclone.reach("a", "away:bucket", config.settings.rclone_config), idle_seconds=1.0)
    assert sftp.process is not None
    os.kill(sftp.process.pid, 19)
    try:
        with pytest.raises(rclone.TargetFailed, match=r"took or gave nothing for 1 s|does not answer") as failed:
            rclone.send(remote, "f", [bytes(1 << 20)] * 64, 64 << 20)
    finally:
        os.kill(sftp.process.pid, 18)
    assert failed.value.transient


@pytest.mark.parametrize("kind", ["sftp", "directory"])
def test_a_record_is_replaced_in_one_step(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """Anyone who reads it meanwhile reads the old one or the new, never a torn one.

    This SFTP server takes the old one away before it gives the new one its name, so that a reader may find none for a moment.
    """
    served = request.getfixturevalue("sftp") if kind == "sftp" else None
    place, sections = ("away:bucket", {"away": served.section}) if served else (str(tmp_path / "disk"), {})
    directory = served.files / "bucket" if served else tmp_path / "disk"
    directory.mkdir(exist_ok=True)
    config = copying_to(tmp_path, place, sections=sections)
    remote = rclone.reach("a", place, config.settings.rclone_config, bandwidth=8 * MIB)
    contents = [letter * (4 * MIB) for letter in (b"o", b"n")]
    rclone.put(remote, "record", contents[0])
    seen: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.005):
            try:
                content = (directory / "record").read_bytes()
            except FileNotFoundError:
                content = b"none"
            seen.add(content if content in (*contents, b"none") else content[:20] + b" and so on")

    looking = threading.Thread(target=look)
    looking.start()
    rclone.put(remote, "record", contents[1])
    wait_until(lambda: contents[1] in seen, 10, "the new one was not seen")
    ended.set()
    looking.join()
    assert seen - ({b"none"} if kind == "sftp" else set()) == set(contents)
    assert [each.name for each in directory.iterdir()] == ["record"]


@pytest.mark.parametrize(
    ("remote", "told"),
    [
        (":s3,access_key_id=canary:bucket", "is not a place of rclone's"),
        ("away,pass=canary:x", "is not a place of rclone's"),
        ("relative/path", "is not a place of rclone's"),
        ("away:../x", 'contains ".."'),
        ("/", "is the root directory"),
    ],
)
def test_a_place_that_is_none_is_refused_and_not_shown(remote: str, told: str) -> None:
    with pytest.raises(ValueError, match="remote") as refused:
        CopyTarget.model_validate({"name": "a", "remote": remote})
    assert told in str(refused.value)


def test_refusals_are_told_of_refused_files(tmp_path: Path) -> None:
    """A configuration of another user could name another's server."""
    config = copying_to(tmp_path, "away:bucket", sections={"away": {"type": "memory"}})
    os.chown(config.settings.rclone_config, 12345, 12345)
    with pytest.raises(Refused, match="belongs to user 12345"):
        rclone.reach("a", "away:bucket", config.settings.rclone_config)
