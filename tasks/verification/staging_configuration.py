"""What staging's application gets of production's mounted configuration: names, and content that holds no secret."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tasks.adapters.archive.reader import CheckedArchive, read_small_members
from tasks.adapters.host.files import make_mounted_directory, write_atomically
from tasks.core.stack.certificates import public_certificates
from tasks.core.stack.harmless_settings import staging_settings_file
from tasks.core.stack.installation import Installation, Mount

LARGEST_BYTES = 1024 * 1024


def configuration_mounts(
    production: Installation, archive: CheckedArchive, directory: Path, *, connection: str
) -> list[dict[str, Any]]:
    """Put stand-ins for the archive's configuration files below `directory`, and give the mounts that bring them to the application.

    An application may not start without the files it is used to. A file of certificates has its certificates, one of
    settings what staging may know of them, and every other is empty: a private key, a file of passwords, a secret of
    Compose's.
    """
    members = {member.name for member in archive.members}
    held: dict[Mount, dict[str, Path]] = {}
    for mount in production.application.mounts:
        if mount.kind != "bind" or mount.host_path is None:
            continue
        # Configuration files are known by their real directory, too.
        source = Path(os.path.realpath(mount.host_path.parent)) / mount.host_path.name
        held[mount] = {
            file.archive_name: file.path.relative_to(source)
            for file in production.config_files
            if file.path.is_relative_to(source) and file.archive_name in members
        }
    contents = read_small_members(archive, {name for names in held.values() for name in names}, max_bytes=LARGEST_BYTES)
    mounts: list[dict[str, Any]] = []
    for mount, names in held.items():
        if not names:
            continue
        root = directory / "configuration" / str(len(mounts))
        for name, inside in names.items():
            place = root / inside if inside.parts else root
            make_mounted_directory(place.parent)  # the application may be another user
            write_atomically(place, _stand_in(name, contents.get(name, b""), connection), 0o644)
        mounts.append({"type": "bind", "source": str(root), "target": mount.target, "read_only": True})
    return mounts


def _stand_in(name: str, content: bytes, connection: str) -> bytes:
    if name.casefold().endswith(".json"):
        return staging_settings_file(content.decode(errors="replace"), connection).encode()
    return public_certificates(content)
