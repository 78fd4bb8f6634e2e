"""An operator's key file: what is taken, what is refused and in which words; and keys of plugins."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest

from tasks.adapters.archive import age, unsealing
from tasks.adapters.archive.identity_file import read_identities
from tasks.adapters.archive.open_keys import IDENTITY_VARIABLE, opening_with
from tasks.adapters.archive.opening import opens
from tasks.adapters.archive.reader import check_archive
from tasks.core.archive.recipients import recipient_problem
from tasks.core.errors import Refused, UsageError
from tests.integration.age_plugin import install_plugin, plugin_identity, plugin_recipient
from tests.integration.archives import NAME, make_archive

KEY = pyrage.x25519.Identity.generate()


def private(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    return path


def ssh_key(place: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    path = place / f"id_{kind}_{passphrase}"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path], check=True, timeout=60)
    return path


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let somebody sit there who types `secret`."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda _: "secret")


def test_lines_and_comments(tmp_path: Path) -> None:
    other = pyrage.x25519.Identity.generate()
    path = private(tmp_path / "keys", f"# created: today\n\n{KEY}\n  {other}\n")
    assert read_identities(path) == (str(KEY), str(other))


def test_an_ssh_key_is_taken_with_its_passphrase_at_a_terminal(tmp_path: Path, at_a_terminal: None) -> None:
    """What it gives opens an archive that is encrypted to the public half."""
    for passphrase in ("", "secret"):
        path = ssh_key(tmp_path, passphrase=passphrase)
        public = path.with_suffix(".pub").read_text().strip()
        data = pyrage.encrypt(b"x", [pyrage.ssh.Recipient.from_str(public)])
        assert age.decrypt(data, read_identities(path)) == b"x"
    with pytest.raises(UsageError, match="passphrase does not open"):
        read_identities(ssh_key(tmp_path, passphrase="another"))


def test_a_locked_age_file_at_a_terminal(tmp_path: Path, at_a_terminal: None) -> None:
    path = private(tmp_path / "locked", pyrage.passphrase.encrypt(f"{KEY}\n".encode(), "secret"))
    assert read_identities(path) == (str(KEY),)
    with pytest.raises(UsageError, match="does not open"):
        read_identities(private(tmp_path / "other", pyrage.passphrase.encrypt(b"x", "another")))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no identity"),
        ("# only a comment\n", "holds no identity"),
        (str(KEY.to_public()), "no age identity"),
        (str(KEY)[:-1] + ("P" if str(KEY).endswith("Q") else "Q"), "no age identity"),
        (b"\xff\xfe\x00", "no age identity"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n",
            "no SSH private key",
        ),
        (pyrage.passphrase.encrypt(b"x", "secret"), "nobody is there"),
    ],
    # The same in each process, and no key in them.
    ids=["empty", "a comment", "a recipient", "a misspelt key", "no text", "a broken SSH key", "a locked file"],
)
def test_what_is_no_key_is_refused_without_repeating_it(tmp_path: Path, content: bytes | str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read_identities(private(tmp_path / "key", content))
    assert "AGE-SECRET-KEY-1" + str(KEY)[16:30] not in str(caught.value)


def test_other_kinds_and_other_owners_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another kind"):
        read_identities(ssh_key(tmp_path, kind="rsa"))
    with pytest.raises(UsageError, match="nobody is there"):
        read_identities(ssh_key(tmp_path, passphrase="secret"))
    with pytest.raises(UsageError, match="no identity file"):
        read_identities(tmp_path / "none")
    path = private(tmp_path / "key", str(KEY))
    path.chmod(0o640)
    with pytest.raises(UsageError, match="open to others"):
        read_identities(path)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
        os.chown(path, 12345, 0)
        with pytest.raises(Refused, match="belongs to user 12345"):
            read_identities(path)


def test_old_archives_stay_readable_after_the_keys_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each opens with its own key; a file with both opens both, and may be named by the environment."""
    new = pyrage.x25519.Identity.generate()
    before = make_archive(tmp_path / "a", recipients=(str(KEY.to_public()),)).path
    after = make_archive(tmp_path / "b", name=NAME + "-2", recipients=(str(new.to_public()),)).path
    with opening_with((str(KEY),)):
        assert [opens(before), opens(after)] == [True, False]
    monkeypatch.setenv(IDENTITY_VARIABLE, str(private(tmp_path / "both", f"{KEY}\n{new}\n")))
    assert [check_archive(path).name for path in (before, after)] == [NAME, NAME + "-2"]


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("age", marks=pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed")),
        "our own",
    ],
)
def test_a_plugins_key_opens_what_was_encrypted_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """Small parts and large ones, by age and by our own process."""
    install_plugin(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(unsealing, "SMALL_PART_BYTES", 1 << 20)
    if program != "age":
        monkeypatch.setattr(age, "PROGRAM", "no-such-program")
    assert recipient_problem(plugin_recipient()) == ""
    noise = os.urandom(3 << 20)
    sealed = make_archive(
        tmp_path / "backups", members={"noise": noise}, recipients=(plugin_recipient(), str(KEY.to_public()))
    )
    with opening_with(read_identities(private(tmp_path / "key", f"{plugin_identity()}\n"))):
        assert check_archive(sealed.path).sha256 == sealed.sha256
