"""`recover-from` on a bad day that gets worse: each trouble is one sentence with something to try, and nothing is begun."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tasks.adapters.archive.identity import read_identity
from tasks.core.archive.manifest import Record
from tasks.run.config import InstallationConfig
from tests.cli import PROGRAM, run_program
from tests.integration.copying import copy, copying_to, night
from tests.prefect_server import free_port
from tests.settings import write_settings
from tests.targets import write_config

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_engine")]

RIGHT, WRONG = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
Recover = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def config(tmp_path: Path) -> InstallationConfig:
    (tmp_path / "usb").mkdir()
    return copying_to(tmp_path, str(tmp_path / "usb"), sections={})


@pytest.fixture
def recover(config: InstallationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recover:
    """Give who runs the command on a host that knows nothing, into a directory that is not there yet; with the right public key unless told."""
    (tmp_path / "new host").mkdir(mode=0o700)
    for name, key in (("right", RIGHT), ("wrong", WRONG)):
        (tmp_path / name).write_text(f"{key}\n")
        (tmp_path / name).chmod(0o600)

    def run(target: str, *words: str, known: bool = True) -> tuple[int, Any, str]:
        public = read_identity(config.id, config.directory).public
        trusted = ["--trusted-key", public] if known and public else []
        with monkeypatch.context() as patch:
            patch.setenv("MAILARCHIVER_BACKUP_STATE", str(tmp_path / "new host"))
            into = [] if "--into" in words else ["--into", str(tmp_path / "srv")]
            code, out, err = run_program([PROGRAM, "recover-from", target, *into, *words, *trusted, "--json"])
        assert "Traceback" not in err
        assert "unexpected" not in err
        assert not list((tmp_path / "srv").glob("*"))
        return code, json.loads(out), err

    return run


def made(
    config: InstallationConfig, days_ago: float = 0, *, key: pyrage.x25519.Identity | None = RIGHT, **more: Any
) -> Record:
    found = night(config, days_ago, recipients=(str(key.to_public()),) if key is not None else (), **more)
    copy(config)
    return found


def test_a_wrong_key_or_none_is_told_before_anything_is_written(
    config: InstallationConfig, recover: Recover, tmp_path: Path
) -> None:
    """The hint names an older backup that the key opens, where there is one."""
    old = made(config, 2, key=WRONG)
    new = made(config)
    place = str(tmp_path / "usb")
    code, told, err = recover(place)
    assert (code, told["error"]) == (1, f"{new.manifest.name} is encrypted, and no key was given")
    assert "--identity" in told["hint"]
    assert f"Taken: {new.manifest.name}" in err
    code, told, _ = recover(place, "--identity", str(tmp_path / "wrong"))
    assert (code, told["hint"]) == (1, f"the key of --identity opens an older one: --backup {old.manifest.name}")
    code, told, _ = recover(place, "--identity", str(tmp_path / "wrong"), "--backup", new.manifest.name)
    assert (code, "recovery key" in told["hint"]) == (1, True)
    code, told, _ = recover(place, "--identity", str(tmp_path / "nowhere"))
    assert (code, "there is no identity file" in told["error"]) == (2, True)


def test_a_backup_that_no_known_key_signed_wants_a_word(
    config: InstallationConfig, recover: Recover, tmp_path: Path
) -> None:
    record = made(config, key=None)
    code, told, _ = recover(str(tmp_path / "usb"), known=False)
    assert (code, record.manifest.name in told["error"]) == (1, True)
    assert "--trusted-key" in told["hint"]
    assert "--foreign" in told["hint"]
    code, told, _ = recover(str(tmp_path / "usb"), "--trusted-key", "nonsense", known=False)
    assert (code, "nonsense" in told["error"]) == (2, True)


def test_a_damaged_copy_is_refused_and_the_one_before_it_named(
    config: InstallationConfig, recover: Recover, tmp_path: Path
) -> None:
    """In one file or in parts; a copy of which a part is missing is passed over."""
    old, new = made(config, 1, key=None), made(config, key=None, large=True)
    part = tmp_path / "usb" / f"{new.file}.part-0002"
    content = bytearray(part.read_bytes())
    content[1000] ^= 1
    part.write_bytes(content)
    code, told, _ = recover(str(tmp_path / "usb"))
    assert (code, told["hint"]) == (1, f"take the one before it: --backup {old.manifest.name}")
    part.unlink()
    code, told, err = recover(str(tmp_path / "usb"))
    assert f"Taken: {old.manifest.name}" in err
    assert f"Not {new.manifest.name}: only a part of it is there" in err
    assert (code, "compose" in told["error"]) == (1, True)  # these archives hold no stack


def test_a_place_without_backups_or_no_place_at_all(
    config: InstallationConfig, recover: Recover, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for target, words in (
        (str(tmp_path / "empty"), "there is no backup at"),
        (str(tmp_path / "not there"), "is no directory of this machine"),
        (str(tmp_path / "right"), "is a file"),
        ("away", "is no directory of this machine"),
        ("away:mail", "rclone"),
        (":s3,secret_access_key=canary:bucket", "is not a place of rclone's"),
        ("away:../x", 'contains ".."'),
    ):
        code, told, _ = recover(target)
        assert (code, words in told["error"]) == (2, True), (target, told)
        assert told["hint"]
        assert "canary" not in str(told)
    record = made(config, key=None)
    code, told, _ = recover(str(tmp_path / "usb"), "--backup", "mailarchiver-backup-20200101-000000")
    assert (code, record.manifest.name in told["hint"]) == (2, True)
    assert recover(str(tmp_path / "usb"), "--backup", "../../etc/passwd")[0] == 2


def test_a_target_that_is_away_or_open_to_others(config: InstallationConfig, recover: Recover, tmp_path: Path) -> None:
    dead = {"type": "webdav", "url": f"http://127.0.0.1:{free_port()}"}
    rclone_config = write_config(tmp_path / "rclone of mine", {"away": dead})
    code, told, _ = recover("away:mail", "--rclone-config", str(rclone_config))
    assert (code, "does not answer" in told["error"]) == (1, True)
    code, told, _ = recover("home:mail", "--rclone-config", str(rclone_config))
    assert (code, "is not in rclone's configuration" in told["error"]) == (1, True)
    rclone_config.chmod(0o644)
    code, told, _ = recover("away:mail", "--rclone-config", str(rclone_config))
    assert (code, "others may read" in told["error"], "chmod 0600" in told["hint"]) == (1, True, True)
    code, told, _ = recover("away:mail", "--rclone-config", str(tmp_path / "none"))
    assert (code, "there is no rclone configuration" in told["error"]) == (2, True)


def test_a_directory_with_something_in_it_and_a_host_without_an_engine(
    config: InstallationConfig, recover: Recover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(config, key=None)
    code, told, _ = recover(str(tmp_path / "usb"), "--into", str(tmp_path / "usb"))
    assert (code, "is not an empty directory" in told["error"]) == (1, True)
    code, told, _ = recover(str(tmp_path / "usb"), "--into", str(tmp_path / "right"))
    assert (code, "is not an empty directory" in told["error"]) == (1, True)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    code, told, _ = recover(str(tmp_path / "usb"))
    assert (code, "Docker is not running" in told["error"]) == (1, True)


def test_a_target_of_a_settings_file_is_known_by_its_name(
    config: InstallationConfig, recover: Recover, tmp_path: Path
) -> None:
    """Where the settings were saved, with their target and the keys that they trust, no other word is needed."""
    record = made(config, key=None)
    public = read_identity(config.id, config.directory).public
    saved = {
        "directory": tmp_path / "srv", "repository": tmp_path / "new backups", "trusted_keys": [public],
        "copies": [{"name": "usb", "remote": str(tmp_path / "usb")}],
    }  # fmt: skip
    settings = str(write_settings(tmp_path / "saved.yaml", {"main": saved}))
    _, told, err = recover("usb", "--settings", settings, known=False)
    assert f"Taken: {record.manifest.name}" in err
    assert "at target usb, signed with a key that is known here" in err
    assert "compose" in told["error"]  # these archives hold no stack
    code, told, _ = recover("nas", "--settings", settings, known=False)
    assert (code, "targets of the settings: usb" in told["error"]) == (2, True)
