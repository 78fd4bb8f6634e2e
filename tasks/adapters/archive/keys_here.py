"""Keys on this machine that open its own archives: where people leave them, and where they do not think of them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pyrage
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from tasks.adapters.host.outside_files import MAYBE_KEY, UnfitFile, read_outside

logger = logging.getLogger(__name__)

_FILES_LIMIT = 2_000
_AGE_KEY = re.compile(rb"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}", re.IGNORECASE)
_SSH_KEY = b"PRIVATE KEY-----"
_NOT_LOOKED_INTO = (".tar.gz", ".tar.zst", ".age.tar", ".sql", ".dump", ".log")


def keys_that_open(recipients: Collection[str], places: Iterable[Path]) -> list[Path]:
    """Name the files with a private key of one of these recipients: files that are named, and those that lie directly in a named directory.

    A key that is locked with a passphrase opens nothing by itself, and is not named; nor is what cannot be read here.
    """
    wanted = {_bare(each) for each in recipients}
    found: dict[Path, None] = {}
    for path in _files(places):
        if any(_bare(each) in wanted for each in _public_halves(path)):
            found[path.resolve()] = None
    return list(found)


def _files(places: Iterable[Path]) -> Iterator[Path]:
    left = _FILES_LIMIT
    for place in places:
        try:
            entries = sorted(os.scandir(place), key=lambda each: each.name) if place.is_dir() else None
        except OSError as error:
            logger.debug("%s is not looked into for keys: %s", place, error)
            continue
        if entries is None:
            yield place
            continue
        for entry in entries:
            if left and not entry.name.endswith(_NOT_LOOKED_INTO) and ".part-" not in entry.name:
                left -= 1
                yield Path(entry.path)


def _public_halves(path: Path) -> Iterator[str]:
    try:
        content, _ = read_outside(path, MAYBE_KEY)
    except (FileNotFoundError, UnfitFile, PermissionError):
        return
    for text in dict.fromkeys(_AGE_KEY.findall(content)):
        try:
            yield str(pyrage.x25519.Identity.from_str(text.decode().upper()).to_public())
        except pyrage.IdentityError:
            continue
    if _SSH_KEY in content:
        try:
            key = load_ssh_private_key(content, None)
            yield key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        except (ValueError, TypeError, UnsupportedAlgorithm):  # of another kind, or locked with a passphrase
            return


def _bare(recipient: str) -> str:
    """Give a recipient without the comment that an SSH key may have.

    >>> _bare("ssh-ed25519 AAAA me@home"), _bare("age1xyz")
    ('ssh-ed25519 AAAA', 'age1xyz')
    """
    return " ".join(recipient.split()[:2])
