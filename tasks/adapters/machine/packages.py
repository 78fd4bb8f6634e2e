"""What is installed on this host, and which system it is."""

from __future__ import annotations

import platform
import shutil
import socket

from tasks.adapters.host.processes import run
from tasks.core.errors import BackupError

MANAGERS = (
    ("dpkg-query", "--show", "--showformat=${Package} ${Version} ${Architecture} ${Status}\\n"),
    ("rpm", "--query", "--all"),
    ("apk", "info", "--verbose"),
    ("pacman", "--query"),
)
LIST_SECONDS = 120.0


def installed_packages() -> tuple[str, str]:
    """Give the name of the package manager's program and its list; empty where none is known here, or it fails."""
    for command in MANAGERS:
        if shutil.which(command[0]) is None:
            continue
        try:
            return command[0], run(command, timeout_seconds=LIST_SECONDS).stdout
        except BackupError:
            continue
    return "", ""


def hostname() -> str:
    """Name this host."""
    return socket.gethostname()


def system_name() -> str:
    """Name the system that runs here."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "") or platform.system()
    except OSError:
        return platform.system()
