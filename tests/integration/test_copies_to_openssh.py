"""Copies at OpenSSH's own server: it is known by its host key and knows us by ours, and what is wrong with either is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.adapters.copies.target_state import read_target_state
from tasks.oversight.copies import CopiesFailed
from tests.integration.copying import at, copy, copying_to, night
from tests.targets import PASSWORD, Server, obscured, serving

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture(scope="module")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served"), "openssh") as server:
        yield server


def test_a_copy_is_compared_by_the_servers_own_hash(openssh: Server, tmp_path: Path) -> None:
    """A server with a shell hashes what arrived: no copy counts as compared by its size alone."""
    config = copying_to(tmp_path, "away:bucket", sections={"away": openssh.section})
    made = night(config, large=True)
    copy(config)

    entry = read_target_state("main", "a").copies[made.manifest.name]
    assert entry.compared
    assert all(each.hash for each in entry.parts.values())


@pytest.mark.parametrize(
    ("what", "told", "hint"),
    [
        ("a wrong key", "refuses us", "user, password and rights"),
        ("a wrong password", "refuses us", "user, password and rights"),
        ("no key at all", "cannot be logged in to: rclone has no key for it", "key_file"),
        ("a key file that is gone", "cannot be logged in to: rclone has no key for it", "key_file"),
    ],
)
def test_who_may_not_come_in_is_told_so_without_the_secret(
    openssh: Server, tmp_path: Path, what: str, told: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    section = {key: value for key, value in openssh.section.items() if key != "key_file"}
    if what == "a wrong key":
        section["key_file"] = str(openssh.files.parent / "other-key")
    elif what == "a wrong password":
        section["pass"] = obscured(PASSWORD)
    elif what == "a key file that is gone":
        section["key_file"] = str(tmp_path / "gone")
    config = copying_to(tmp_path, "away:bucket", sections={"away": section})
    made = night(config)
    before = set(at(openssh))
    with caplog.at_level(logging.DEBUG), pytest.raises(CopiesFailed, match=f"target a {told}") as failed:
        copy(config)

    assert hint in failed.value.hint
    assert not any(secret in f"{failed.value}{caplog.text}" for secret in (PASSWORD, section.get("pass", PASSWORD)))
    assert set(at(openssh)) == before
    assert (config.repository / made.file).exists()


@pytest.mark.parametrize("known", ["nothing", "another key"])
def test_a_server_that_is_not_known_by_its_key_gets_nothing(openssh: Server, tmp_path: Path, known: str) -> None:
    """Anyone who answers in its place sees neither a password nor a byte of a backup."""
    hosts = tmp_path / "known_hosts"
    other = " ".join((openssh.files.parent / "other-key.pub").read_text().split()[:2])
    hosts.write_text(f"[127.0.0.1]:{openssh.port} {other}\n" if known == "another key" else "")
    config = copying_to(tmp_path, "away:bucket", sections={"away": {**openssh.section, "known_hosts_file": str(hosts)}})
    night(config)
    before = set(at(openssh))
    with pytest.raises(CopiesFailed, match="shows a host key that is not the one we know") as failed:
        copy(config)

    assert "ssh-keyscan" in failed.value.hint
    assert "known_hosts_file" in failed.value.hint
    assert set(at(openssh)) == before
