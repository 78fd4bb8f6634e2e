"""Keys for one verification: made for one archive, kept in memory-backed storage until its verification has ended or a limit has passed.

Anyone who has such a key opens that one archive. So it lies in a file of root's alone (0600) that is on no disk, and a run that finds one past its
limit, or without its archive, takes it away: after a crash, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from datetime import datetime
from pathlib import Path

from tasks.adapters.archive.new_identity import NewIdentity, new_identity
from tasks.adapters.host.memory_place import made_memory_place, memory_obstacle, memory_place
from tasks.adapters.host.outside_files import VERIFICATION_KEY, UnfitFile, read_outside
from tasks.core.archive.names import PARTIAL_EXTENSION

logger = logging.getLogger(__name__)

_SUFFIX = ".verification-key"


def new_verification_key() -> NewIdentity | None:
    """Make a key pair; None, said in the log, where it could not be kept in memory-backed storage."""
    if obstacle := memory_obstacle():
        logger.warning("no key for the verification: %s; the archive is not verifiable here", obstacle)
        return None
    return new_identity()


def keep_key(archive: Path, key: NewIdentity, *, until: datetime) -> None:
    """Keep the key of an archive until a moment."""
    place = made_memory_place() / _name(archive)
    text = json.dumps({"archive": str(_real(archive)), "until": until.isoformat(), "key": key.identity})
    place.unlink(missing_ok=True)
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def kept_key(archive: Path, *, now: datetime) -> str | None:
    """Give the key of an archive; None where there is none, or where its limit has passed (then it goes)."""
    if memory_obstacle():
        return None
    place = memory_place() / _name(archive)
    found = _read(place)
    if found is None or found["archive"] != str(_real(archive)):
        return None
    if now >= datetime.fromisoformat(found["until"]):
        _remove(place)
        return None
    return found["key"]


def drop_key(archive: Path) -> None:
    """Take the key of an archive away; there need not be one."""
    _remove(memory_place() / _name(archive))


def drop_stale_keys(*, now: datetime) -> int:
    """Take away the keys whose limit has passed and those of archives that are neither there nor being made; return how many."""
    if not memory_place().is_dir() or os.geteuid() != 0:
        return 0
    dropped = 0
    for place in sorted(memory_place().glob(f"*{_SUFFIX}")):
        found = _read(place)
        if found is not None and now < datetime.fromisoformat(found["until"]):
            archive = Path(found["archive"])
            if archive.exists() or archive.with_name(archive.name + PARTIAL_EXTENSION).exists():
                continue
        _remove(place)
        dropped += 1
    return dropped


def _real(archive: Path) -> Path:
    """Name an archive by where its directory really is: a repository may be reached through a link, too."""
    return archive.parent.resolve() / archive.name


def _name(archive: Path) -> str:
    return hashlib.sha256(str(_real(archive)).encode()).hexdigest()[:32] + _SUFFIX


def _read(place: Path) -> dict[str, str] | None:
    try:
        found = json.loads(read_outside(place, VERIFICATION_KEY)[0])
        datetime.fromisoformat(found["until"])
        return {name: str(found[name]) for name in ("archive", "until", "key")}
    except (OSError, UnfitFile, ValueError, KeyError, TypeError):
        return None


def _remove(place: Path) -> None:
    """Overwrite a key, then unlink it: memory that is given back is not always cleared at once."""
    try:
        size = place.stat().st_size
        descriptor = os.open(place, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, bytes(size), 0)
        finally:
            os.close(descriptor)
        place.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("the key for one verification %s cannot be removed: %s", place, error.strerror)
