"""The configuration in an archive: shown as a difference, put in place only on request, or written to a fresh host."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.reader import CheckedArchive, open_member
from tasks.adapters.host.files import keep_copy, make_directory, reclaim_temporaries, write_atomically
from tasks.adapters.host.outside_files import CONFIGURATION, read_outside
from tasks.core.archive.layout import (
    BACKUP_MANIFEST_NAME,
    COMPOSE_FILE,
    DATA_DIRECTORY,
    DUMP_MEMBERS,
    KEYS_DIRECTORY,
    MANIFEST_NAME,
    OUTSIDE,
    ROLES_MEMBER,
)
from tasks.core.errors import Refused
from tasks.core.stack.config_diff import configuration_diff
from tasks.core.stack.installation import Installation
from tasks.step import step

logger = logging.getLogger(__name__)

FILE_LIMIT_BYTES = 4 << 20
_OUTSIDE = f"{OUTSIDE}/"
_DATA = (KEYS_DIRECTORY, DATA_DIRECTORY)


def configuration_members(archive: CheckedArchive) -> list[str]:
    """List the archive's configuration files: everything that is neither data nor ours."""
    ours = {MANIFEST_NAME, ROLES_MEMBER, BACKUP_MANIFEST_NAME, *DUMP_MEMBERS.values()}
    return [
        member.name for member in archive.members if member.name not in ours and member.name.split("/")[0] not in _DATA
    ]


@step(name="compare configuration")
def compare_configuration(installation: Installation, archive: CheckedArchive) -> dict[str, str]:
    """Give, for each configuration file of the archive that differs from the installation's, the difference without secrets."""
    found = {}
    for name in configuration_members(archive):
        place = _place(installation, name)
        current = _current(place)
        difference = configuration_diff(name, current, _content(archive, name).decode(errors="replace"))
        if difference:
            found[name] = difference
    return found


def _current(place: Path | None) -> str | None:
    if place is None or not place.is_file():
        return None
    return read_outside(place, CONFIGURATION)[0].decode(errors="replace")


@step(name="restore configuration")
def restore_configuration(
    installation: Installation, archive: CheckedArchive, names: list[str], *, now: datetime
) -> list[str]:
    """Put these configuration files of the archive in place, keeping each current one beside it; return what was replaced.

    Files from outside the installation's directory are left alone. Nothing takes effect before `docker compose up` is run by hand.
    """
    replaced = []
    for name in names:
        place = _place(installation, name)
        if place is None:
            logger.warning("%s lies outside the installation and is not restored", name)
            continue
        content = _content(archive, name)
        if place.is_dir():
            raise Refused(
                f"{place} is a directory where {archive.name} has a file", hint="move it away, then restore again"
            )
        make_directory(place.parent)
        reclaim_temporaries(place.parent, place.name)
        current = None
        # The file has its name at every moment: a second one is added to it, then the new content takes the first.
        if os.path.lexists(place):
            keep_copy(place, place.with_name(f"{place.name}.before-{now.astimezone(UTC):%Y%m%d_%H%M%S}"))
            current = place.stat() if place.exists() else None
        write_atomically(place, content, like=current)
        replaced.append(name)
    return replaced


@step(name="write configuration")
def write_configuration(archive: CheckedArchive, directory: Path) -> list[Path]:
    """Write the archive's configuration into an empty directory of a fresh host; return its compose files.

    Raise Refused where the directory holds anything, or where the archive has no compose file.
    """
    if directory.exists() and any(directory.iterdir()):
        raise Refused(
            f"{directory} is not empty; a restore onto a fresh host needs an empty directory", hint="choose another"
        )
    make_directory(directory)
    for name in configuration_members(archive):
        if name.startswith(_OUTSIDE):
            logger.warning("%s lay outside the installation's directory and is not written", name)
            continue
        make_directory((directory / name).parent)
        write_atomically(directory / name, _content(archive, name))
    names = archive.manifest.compose_files if archive.manifest else [COMPOSE_FILE]
    files = [directory / name for name in names if (directory / name).is_file()]
    if not files:
        raise Refused(f"{archive.name} holds no compose file", hint="restore it into an installation that exists")
    return files


def _place(installation: Installation, name: str) -> Path | None:
    for file in installation.config_files:
        if file.archive_name == name:
            return file.path
    return None if name.startswith(_OUTSIDE) else installation.directory / name


def _content(archive: CheckedArchive, name: str) -> bytes:
    size = next(member.bytes for member in archive.members if member.name == name)
    if size > FILE_LIMIT_BYTES:
        raise Refused(f"{name} in {archive.name} has {size:,} bytes: that is no configuration file")
    return b"".join(open_member(archive, name))
