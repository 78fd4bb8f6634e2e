"""An operator's file of private keys: age identities, or an SSH key. Private to its owner, or it is not used."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import pyrage
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key

from tasks.adapters.archive.age_keys import identities_of
from tasks.adapters.host.outside_files import IDENTITY, read_outside
from tasks.core.errors import UsageError

_PRIVATE_HINT = "chmod 600 it: anyone who reads it can open the archives"
_AGE_FILE = (b"age-encryption.org/v1", b"-----BEGIN AGE ENCRYPTED FILE-----")


def read_identities(path: Path) -> tuple[str, ...]:
    """Read the keys of a file; raise UsageError for what is none, for a file that others can read, and for a locked one without a terminal."""
    try:
        content, found = read_outside(path, IDENTITY)
    except FileNotFoundError:
        raise UsageError(f"there is no identity file {path}", hint="is the medium with the key mounted?") from None
    if found.st_mode & 0o077:
        raise UsageError(f"{path} is open to others (mode {found.st_mode & 0o7777:04o})", hint=_PRIVATE_HINT)
    if content.startswith(_AGE_FILE):
        content = _unlocked_age_file(path, content)
    if b"PRIVATE KEY-----" in content:
        texts: tuple[str, ...] = (_ssh_key(path, content),)
    else:
        lines = [line.strip() for line in content.decode(errors="replace").splitlines()]
        texts = tuple(line for line in lines if line and not line.startswith("#"))
    try:
        identities_of(texts)
    except (pyrage.IdentityError, pyrage.DecryptError, pyrage.EncryptError) as error:
        raise UsageError(
            f"{path} holds a line that is no age identity",
            hint="it is the file that holds AGE-SECRET-KEY-1..., or an SSH private key",
        ) from error
    if not texts:
        raise UsageError(f"{path} holds no identity", hint="it is the file that holds AGE-SECRET-KEY-1...")
    return texts


def _unlocked_age_file(path: Path, content: bytes) -> bytes:
    try:
        return bytes(pyrage.passphrase.decrypt(content, _passphrase(path)))
    except pyrage.DecryptError as error:
        raise UsageError(f"the passphrase does not open {path}, or it is no age file with one") from error


def _ssh_key(path: Path, content: bytes) -> str:
    """Give an SSH key without its passphrase; raise UsageError where it is none, or of another kind."""
    password: bytes | None = None
    while True:
        try:
            key = load_ssh_private_key(content, password)
            break
        except TypeError:  # it has a passphrase
            password = _passphrase(path).encode()
        except (ValueError, UnsupportedAlgorithm) as error:
            what = "the passphrase does not open" if password is not None else "no SSH private key is in"
            raise UsageError(f"{what} {path}", hint="age takes keys of the kind ssh-ed25519") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is an SSH key of another kind than ssh-ed25519")
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def _passphrase(path: Path) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            f"{path} is locked with a passphrase, and nobody is there to give it",
            hint="run it on a terminal, or unlock it to a file of mode 0600 in memory-backed storage: age -d -o /run/key FILE",
        )
    return getpass.getpass(f"Passphrase of {path}: ")
