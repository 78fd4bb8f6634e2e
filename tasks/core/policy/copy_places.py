"""How a place to copy backups to is written: `NAME:path` with a name of rclone's configuration, or a directory of this machine."""

from __future__ import annotations

import re

from tasks.core.policy.plain_input import text_problem

_REMOTE = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.+@ -]*):(?P<path>.*)", re.DOTALL)


def is_directory(remote: str) -> bool:
    """Tell whether a place is a directory of this machine: a mounted disk, say."""
    return remote.startswith("/")


def remote_problem(text: str) -> str:
    """Say why a text names no place; empty where it does.

    Settings of a backend within the text (`:s3,secret_access_key=...:`) are refused: they would show a secret.

    >>> remote_problem("away:mail/backups"), remote_problem("/mnt/usb/backups")
    ('', '')
    """
    if problem := text_problem(text):
        return problem
    if ".." in text.replace(":", "/").split("/"):
        return 'contains ".."'
    if is_directory(text):
        return "" if text.strip("/") else "is the root directory"
    found = _REMOTE.fullmatch(text)
    if found is None:
        return (
            "is not a place of rclone's: write NAME:path with a name that `rclone config` was given, or an absolute path;"
            " its settings and passwords belong in rclone's own configuration (rclone_config)"
        )
    if found["path"].startswith("-") or found["name"].startswith("-"):
        return "begins with a dash"
    return ""


def place_below(remote: str, name: str) -> str:
    """Give the place of a file in a target.

    >>> place_below("away:", "f"), place_below("away:mail/", "f"), place_below("/mnt/usb", "f")
    ('away:f', 'away:mail/f', '/mnt/usb/f')
    """
    return f"{remote}{'' if remote.endswith((':', '/')) else '/'}{name}"
