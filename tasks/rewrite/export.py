"""Write a backup, whatever it is made of, as one plain archive that the guide's own commands restore."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.archive.archive_source import record_path_of
from tasks.adapters.archive.reader import Archive
from tasks.adapters.archive.writer import abandon_archive, begin_archive, seal_archive, written_members
from tasks.adapters.host.files import make_directory
from tasks.backup.scratch import scratch_beside
from tasks.core.archive.manifest import MANIFEST_VERSION
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.progress import progress
from tasks.rewrite.content import require_room_for_rewrite, write_content
from tasks.run.config import InstallationConfig


@dataclass(frozen=True, slots=True)
class Exported:
    """The archive that was written, of which backup, and how large it is."""

    path: Path
    backup: str
    bytes: int
    sha256: str


def export_backup(config: InstallationConfig, installation: Installation, source: Archive, place: Path) -> Exported:
    """Write a backup into a directory as `NAME.tar.gz` of the guide's format: plain, whole, and with nothing that only this program reads.

    A chain is put together, a compressed dump becomes SQL, an encrypted archive is decrypted with the key at hand; every byte is checked
    meanwhile. It is no backup of the repository's: it has no signature and no record. Raise Refused for the repository itself, and
    for an archive of the guide's own commands; NameTaken where there is such a file.
    """
    if place.resolve() == config.repository.resolve():
        raise Refused(
            f"{place} is the repository: what is exported does not belong there", hint="--to another directory"
        )
    if source.manifest is None:
        raise Refused(
            f"{source.path.name} was made by the guide's own commands: it needs no export", hint="copy the file"
        )
    begun = time.monotonic()
    make_directory(place)
    require_room_for_rewrite(source, place)
    archive = begin_archive(place, source.name, "guide")
    try:
        with scratch_beside(installation, archive) as scratch:
            write_content(installation, source, archive, scratch)
        changes = {
            "version": MANIFEST_VERSION, "format": "guide", "members": written_members(archive), "bulk": None, "parents": [], "encryption": None,
            "origin": None, "history": "",
        }  # fmt: skip
        manifest = source.manifest.model_copy(update=changes)
        with progress("read back") as tell:
            seconds = round(time.monotonic() - begun, 3)
            sealed = seal_archive(archive, manifest, seconds=seconds, on_bytes=lambda _, done: tell(done))
    finally:
        abandon_archive(archive)
    record_path_of(sealed.path).unlink(missing_ok=True)
    return Exported(sealed.path, source.name, sealed.bytes, sealed.sha256)
