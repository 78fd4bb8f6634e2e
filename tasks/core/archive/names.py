"""Names of archives: `mailarchiver-backup-YYYYMMDD-HHMMSS`, in UTC, with a suffix where two would collide.

An encrypted archive is a tar of age files, and its name says so: `NAME.tar.gz.age.tar` unpacks to `NAME.tar.gz.age/000001.age` and so on, which
decrypt to `NAME.tar.gz`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime

from tasks.core.archive.manifest import Format

PREFIX = "mailarchiver-backup-"
EXTENSIONS: dict[Format, str] = {"guide": ".tar.gz", "fast": ".tar.zst"}
SEALED_EXTENSION = ".age.tar"
"""What follows the extension of the archive that is inside an encrypted one."""
ALL_EXTENSIONS = tuple(each + end for end in ("", SEALED_EXTENSION) for each in EXTENSIONS.values())
RECORD_EXTENSION = ".manifest.json"
PARTIAL_EXTENSION = ".partial"
REMOVING_EXTENSION = ".removing"

# How a flow's parameter may name a backup, as a regular expression of JSON Schema: never by a path.
BACKUP_PARAMETER = r"^(latest|stalest|mailarchiver-backup-[0-9]{8}-[0-9]{6}(-[0-9]+)?)$"

_NAME = re.compile(r"mailarchiver-backup-([0-9]{8}-[0-9]{6})(?:-[0-9]+)?")


def backup_name(now: datetime, taken: Collection[str] = ()) -> str:
    """Name a backup begun at `now` so that it differs from all `taken` names.

    >>> backup_name(datetime(2026, 3, 1, 2, 0, 5, tzinfo=UTC), ["mailarchiver-backup-20260301-020005"])
    'mailarchiver-backup-20260301-020005-2'
    """
    name = f"{PREFIX}{now.astimezone(UTC):%Y%m%d-%H%M%S}"
    number = 1
    candidate = name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def extension_of(archive_format: Format, *, sealed: bool) -> str:
    """Give the extension of an archive.

    >>> extension_of("fast", sealed=True)
    '.tar.zst.age.tar'
    """
    return EXTENSIONS[archive_format] + (SEALED_EXTENSION if sealed else "")


def is_sealed(file_name: str) -> bool:
    """Tell from its name whether an archive is encrypted.

    >>> is_sealed("mailarchiver-backup-20260301-020005.tar.gz.age.tar")
    True
    """
    return file_name.endswith(tuple(each + SEALED_EXTENSION for each in EXTENSIONS.values()))


def without_extension(file_name: str) -> str:
    """Give an archive's file name without its extension, if it has one.

    >>> without_extension("mailarchiver-backup-20260301-020005.tar.zst.age.tar")
    'mailarchiver-backup-20260301-020005'
    """
    for extension in ALL_EXTENSIONS:
        if file_name.endswith(extension):
            return file_name.removesuffix(extension)
    return file_name


def split_archive_name(file_name: str) -> tuple[str, Format] | None:
    """Split an archive's file name into the backup's name and format; None where it is not one of ours or the guide's.

    >>> split_archive_name("mailarchiver-backup-20260301-020005.tar.gz")
    ('mailarchiver-backup-20260301-020005', 'guide')
    >>> split_archive_name("mailarchiver-backup-20260301-020005.tar.gz.age.tar")
    ('mailarchiver-backup-20260301-020005', 'guide')
    """
    file_name = file_name.removesuffix(SEALED_EXTENSION) if is_sealed(file_name) else file_name
    for archive_format, extension in EXTENSIONS.items():
        stem = file_name.removesuffix(extension)
        if stem != file_name and _NAME.fullmatch(stem):
            return stem, archive_format
    return None


def time_in_name(name: str) -> datetime | None:
    """Read the moment in a backup's name (the guide's own names carry local time); None where there is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
