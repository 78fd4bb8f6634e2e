"""May this backup be restored onto that server? Decided from facts, before anything is touched."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tasks.core.archive.manifest import DatabaseFacts, Manifest
from tasks.core.errors import Refused


def refuse_unfit_dump(
    manifest: Manifest | None, *, target_major: int, target_migration_head: str | None, same_application: bool
) -> None:
    """Raise Refused where a dump may not be loaded into a server: it is older, or its application is older than the data.

    A newer PostgreSQL is fine, that is how upgrades are done. `same_application` says that the target runs the image that the backup
    was taken with; then the schema versions need no comparing. Nothing is known, so nothing refused, of a legacy archive.
    """
    if manifest is None:
        return
    backup = manifest.database
    if backup.server_major > target_major:
        raise Refused(
            f"{manifest.name} was taken from PostgreSQL {backup.server_major}; this server is PostgreSQL {target_major}, which cannot load it",
            hint=f"use an image of PostgreSQL {backup.server_major} or newer",
        )
    older = backup.migration_head and target_migration_head and backup.migration_head > target_migration_head
    if older and not same_application:
        raise Refused(
            f"the backup's data has schema version {backup.migration_head}, newer than the installation's {target_migration_head}: "
            "an application older than its data does not work",
            hint=f"update the application first (the backup was taken with {_image(manifest, 0)})",
        )


def missing_roles(backup: DatabaseFacts, existing: Collection[str]) -> list[str]:
    """List the roles that the backup knows and the server lacks."""
    return sorted(set(backup.roles) - set(existing))


@dataclass(frozen=True, slots=True)
class Platform:
    """What a PostgreSQL image is, as far as it decides how text sorts and what a data file looks like.

    `libc` is "gnu" or "musl", `libc_version` "" where it does not tell.
    """

    major: int
    libc: str
    libc_version: str
    architecture: str


def refuse_unfit_copy(manifest: Manifest | None, version_file: str, target: Platform, *, archive_name: str) -> None:
    """Raise Refused where a data directory must not run under an image: other major, libc, collation version, or architecture.

    Another libc sorts text differently, so indexes would silently miss rows. A legacy archive tells only its major.
    """
    if version_file != str(target.major):
        raise Refused(
            f"{archive_name} holds data of PostgreSQL {version_file}; the installation's image is PostgreSQL {target.major}",
            hint=f"set the image to PostgreSQL {version_file}, or restore a hot backup, which loads into a newer one",
        )
    if manifest is None:
        return
    backup = manifest.database
    sorts_by_libc = backup.locale_provider == "libc" and backup.collation not in ("C", "POSIX", "C.UTF-8", "C.utf8")
    compared = [
        ("libc", backup.libc, target.libc),
        ("architecture", backup.architecture, target.architecture),
        ("collation version", (backup.collation_version or "") if sorts_by_libc else "", target.libc_version),
    ]
    for what, theirs, ours in compared:
        if theirs and ours and theirs != ours:
            raise Refused(
                f"{archive_name} was taken with {what} {theirs}; the installation's image has {ours}, under which its indexes would be wrong",
                hint=f"use the image that the backup was taken with ({_image(manifest, -1)}), or restore a hot backup",
            )


def _image(manifest: Manifest, place: int) -> str:
    """Name the application's image (the first) or PostgreSQL's (the last); a manifest made by others may name none."""
    return next((image.digest or image.image for image in manifest.images[place:][:1]), "an unknown image")
