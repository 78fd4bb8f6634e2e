"""PostgreSQL's own lists of the files of base backups, kept where the next incremental backup needs them.

They lie inside the archives too; but an encrypted archive cannot be opened here, and no other is worth reading to its end for this. A
list counts only while its SHA-256 is what the backup's signed record says of that member.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path

from tasks.adapters.host.files import write_atomically
from tasks.adapters.host.outside_files import STATE, UnfitFile, read_outside
from tasks.adapters.host.state import state_subdirectory
from tasks.core.archive.layout import BACKUP_MANIFEST
from tasks.core.archive.manifest import Record
from tasks.core.archive.names import split_archive_name

NEWEST_KEPT = 20

logger = logging.getLogger(__name__)


def keep_base_manifest(installation_id: str, name: str, content: bytes) -> None:
    """Keep the list of a backup that is about to be sealed."""
    write_atomically(_place(installation_id) / name, content)


def base_manifest_of(installation_id: str, record: Record) -> bytes | None:
    """Give the list of a backup; None where it is not here, or is not the one that was sealed."""
    path = _place(installation_id) / record.manifest.name
    try:
        content, _ = read_outside(path, STATE)
    except FileNotFoundError:
        return None
    except UnfitFile as error:
        logger.warning("%s is not used: %s", path, error.message)
        return None
    sealed = next((each.sha256 for each in record.manifest.members if each.name == BACKUP_MANIFEST), "")
    return content if hashlib.sha256(content).hexdigest() == sealed else None


def forget_base_manifests(installation_id: str, kept: Collection[str]) -> None:
    """Remove the lists of backups that are no more, and all but the newest: an older backup is built on only where all newer ones are unfit."""
    lists = [each for each in _place(installation_id).iterdir() if split_archive_name(f"{each.name}.tar.gz")]
    lists.sort(key=lambda each: each.name, reverse=True)
    useful = [each for each in lists if each.name in kept][:NEWEST_KEPT]
    for path in lists:
        if path not in useful:
            path.unlink(missing_ok=True)


def _place(installation_id: str) -> Path:
    state_subdirectory("base-manifests")
    return state_subdirectory(f"base-manifests/{installation_id}")
