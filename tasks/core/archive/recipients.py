"""Public keys that archives are encrypted to, as age writes them: `age1...`, `ssh-ed25519 ...`, and those of plugins (`age1NAME1...`)."""

from __future__ import annotations

import re
from typing import Literal

import pyrage

RecipientKind = Literal["x25519", "ssh", "plugin"]
RECIPIENTS_LIMIT = 50
_SECRET = re.compile(r"AGE-SECRET-KEY-|AGE-PLUGIN-|PRIVATE KEY", re.IGNORECASE)
_PLUGIN = re.compile(r"age1(?P<plugin>[a-z0-9-]+)1[02-9ac-hj-np-z]+")


def looks_secret(text: str) -> bool:
    """Tell whether a text holds a private key, so that it is shown nowhere."""
    return _SECRET.search(text) is not None


def recipient_kind(text: str) -> RecipientKind:
    """Tell of which kind a recipient is, by how it begins."""
    if text.startswith("ssh-"):
        return "ssh"
    return "plugin" if _PLUGIN.fullmatch(text) else "x25519"


def plugin_of(text: str) -> str:
    """Name the plugin of a recipient; "" where it needs none.

    >>> plugin_of("age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t")
    'yubikey'
    """
    found = _PLUGIN.fullmatch(text)
    return found["plugin"] if found else ""


def recipient_problem(text: str) -> str:
    """Say why a text is no recipient that archives are encrypted to; "" where it is one. A secret is never repeated.

    >>> recipient_problem("age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t")
    ''
    """
    if looks_secret(text):
        return "is a secret key, not the public one; keep it away from this machine, and make a new one if others could read this file"
    if text.startswith("ssh-") and not text.startswith("ssh-ed25519 "):
        return "is an SSH key of another kind than ssh-ed25519"
    kind = recipient_kind(text)
    try:
        if kind == "ssh":
            pyrage.ssh.Recipient.from_str(text)
        elif kind == "plugin":
            pyrage.plugin.Recipient.from_str(text)
        else:
            pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        return "is no age recipient (age1..., ssh-ed25519 ..., or a plugin's): was all of it copied?"
    return ""


def short_recipient(text: str) -> str:
    """Give a recipient in few characters, to tell it from others.

    >>> short_recipient("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN me@home")
    'ssh-ed25519 ...VHtZ6isGN'
    """
    if text.startswith("ssh-"):
        kind, key = text.split()[:2]
        return f"{kind} ...{key[-9:]}"
    return text if len(text) <= 24 else f"{text[:12]}...{text[-8:]}"


def recipients_in(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read a file of recipients, one a line, `#` begins a comment; give them, and what is wrong with which line."""
    found: list[str] = []
    wrong: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        problem = recipient_problem(stripped)
        if problem:
            wrong.append(f"line {number} {problem}")
        else:
            found.append(stripped)
    return tuple(dict.fromkeys(found)), tuple(wrong)
