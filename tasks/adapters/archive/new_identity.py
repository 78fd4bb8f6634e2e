"""Make a key pair for encrypted archives; its secret half is kept nowhere but where somebody asks for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyrage

from tasks.adapters.host.files import create_whole
from tasks.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """A key pair of age's: archives are encrypted to `recipient`, `identity` opens them."""

    recipient: str
    identity: str = field(repr=False)


def new_identity() -> NewIdentity:
    """Make a key pair."""
    made = pyrage.x25519.Identity.generate()
    return NewIdentity(str(made.to_public()), str(made))


def write_identity(path: Path, made: NewIdentity, now: datetime) -> None:
    """Write an identity file as `age-keygen` does (0600); raise UsageError where the file exists."""
    text = f"# created: {now:%Y-%m-%dT%H:%M:%SZ}\n# public key: {made.recipient}\n{made.identity}\n"
    if not create_whole(path, text.encode()):
        raise UsageError(f"{path} exists already, and a key is never overwritten", hint="name another file")
