"""The marker that proves a repository to be the one that backups went to before, and not the empty directory below a mount that is gone.

The first backup puts a file with a random id into the repository and notes the id, with the place it was mounted at, in
the state directory of this machine. From then on both must agree. A repository that this machine has not seen yet is
taken at its word.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.adapters.host.files import create_whole, fsync_directory, make_directory
from tasks.adapters.host.outside_files import MARKER, read_outside
from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.core.errors import BackupError, Refused, UsageError

MARKER_NAME = ".mailarchiver-backup-repository"
ACCEPT = "mailarchiver-backup accept-repository"


def repository_problem(repository: Path) -> str:
    """Say what is wrong with a repository that backups went to before; empty where nothing is, or where none did."""
    known = read_json(_note_of(repository))
    if known is None:
        return ""
    wanted, found = str(known.get("id", "")), _marker_in(repository)
    if found == wanted:
        return ""
    mounted = str(known.get("mounted_at", "/"))
    if found is None:
        gone = mounted != _mount_of(repository)
        where = f"what was mounted at {mounted} is not mounted" if gone else f"its marker {MARKER_NAME} is missing"
        return f"the repository {repository} is not the one that backups went to before: {where}"
    return f"the repository {repository} is another one than backups went to before: its marker says {found[:16]!r}, not {wanted[:16]!r}"


def require_repository(repository: Path) -> None:
    """Raise Refused where a repository is not the one that backups went to before, UsageError where it is no directory."""
    if repository.exists() and not repository.is_dir():
        raise UsageError(
            f"the repository {repository} is a file, not a directory", hint="name the directory of the archives"
        )
    if problem := repository_problem(repository):
        raise Refused(
            problem,
            hint=f"is its disk mounted? Mount it and try again. If it was moved, emptied or replaced on purpose: {ACCEPT}",
        )


def claim_repository(repository: Path) -> None:
    """Require the repository to be the known one; mark and note one that is new to this machine. Raise Refused otherwise."""
    require_repository(repository)
    if read_json(_note_of(repository)) is None:
        accept_repository(repository)


def accept_repository(repository: Path) -> str:
    """Take the repository as it is now for the one that backups go to, and mark it where it has no marker; return its id."""
    make_directory(repository)
    marker = repository / MARKER_NAME
    found = _marker_in(repository)
    if found is None or not found.isalnum():
        content = {"id": secrets.token_hex(16), "what": "the repository of mailarchiver-backup: leave this file in it"}
        marker.unlink(missing_ok=found is None)
        # Of two that mark it at once, the first one's id is everybody's.
        create_whole(marker, json.dumps(content).encode() + b"\n")
        fsync_directory(repository)
        found = _marker_in(repository)
    if found is None:
        raise BackupError(f"the marker {marker} is gone again", hint="who else removes files there?", transient=True)
    note = {
        "repository": str(repository),
        "id": found,
        "mounted_at": _mount_of(repository),
        "device": os.stat(repository).st_dev,
    }
    write_json(_note_of(repository), note)
    return found


def _note_of(repository: Path) -> Path:
    """Name the note of a repository by its path as the settings write it: a link that leads elsewhere now is no other repository."""
    digest = hashlib.sha256(os.fsencode(os.path.abspath(repository))).hexdigest()[:24]
    return state_subdirectory("repositories") / f"{digest}.json"


def _marker_in(repository: Path) -> str | None:
    """Read the id in a repository's marker: None where there is no marker, words in brackets where it cannot be understood."""
    place = repository / MARKER_NAME
    try:
        text, _ = read_outside(place, MARKER)
        content: Any = json.loads(text)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return "(damaged)"
    found = content.get("id") if isinstance(content, Mapping) else None
    return found if isinstance(found, str) and found.isalnum() else "(damaged)"


def _mount_of(place: Path) -> str:
    """Name the mount point of the file system that holds a path, or would."""
    real = os.path.realpath(place)
    while not os.path.ismount(real):
        real = os.path.dirname(real)
    return real
