"""Keys that open the archives are found where people leave them; what opens nothing, or cannot be read, is not named."""

from __future__ import annotations

import os
from pathlib import Path

import pyrage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tasks.adapters.archive.keys_here import keys_that_open

AGE = pyrage.x25519.Identity.generate()
SSH = Ed25519PrivateKey.generate()
SSH_PUBLIC = SSH.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def ssh_key(password: bytes | None = None) -> bytes:
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    return SSH.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, locked)


def test_keys_of_the_recipients_are_found_in_every_form(tmp_path: Path) -> None:
    """A key file, a sheet with the key on it, in small letters, an SSH key (its public half with another comment), a file that is named."""
    texts = {
        "key.txt": f"# recovery key\n{AGE}\n".encode(), "sheet.html": f"<code>{AGE}</code>".encode(), "small": str(AGE).lower().encode(),
        "id_ed25519": ssh_key(),
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "named").write_text(str(AGE))
    recipients = [str(AGE.to_public()), f"{SSH_PUBLIC} me@home"]
    found = keys_that_open(recipients, [tmp_path, tmp_path / "elsewhere" / "named"])
    assert {each.name for each in found} == {*texts, "named"}
    assert keys_that_open([str(AGE.to_public())], [tmp_path / "elsewhere"]) == [tmp_path / "elsewhere" / "named"]


def test_what_opens_nothing_is_not_named(tmp_path: Path) -> None:
    """Other people's keys, locked ones, rubbish, archives, and files that never end or are too large; a directory that is not there."""
    (tmp_path / "other").write_text(str(pyrage.x25519.Identity.generate()))
    (tmp_path / "locked").write_bytes(ssh_key(b"a passphrase"))
    (tmp_path / "rubbish").write_bytes(b"AGE-SECRET-KEY-1" + b"Q" * 58 + b"\n-----BEGIN PRIVATE KEY-----\nno\n")
    (tmp_path / "public").write_text(f"{AGE.to_public()}\n{SSH_PUBLIC}\n")
    (tmp_path / "archive.tar.gz").write_text(str(AGE))
    (tmp_path / "large").write_bytes(bytes(2 << 20) + str(AGE).encode())
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    recipients = [str(AGE.to_public()), SSH_PUBLIC]
    assert keys_that_open(recipients, [tmp_path, tmp_path / "not there", Path("/dev/zero")]) == []
    assert keys_that_open([], [tmp_path]) == []
