"""Which files of an archive its manifest lists, and the digest of those that it does not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tasks.core.archive.layout import BACKUP_LABEL, BACKUP_MANIFEST, DATA_DIRECTORY, DATA_DIRECTORY_PROOFS
from tasks.core.archive.manifest import Bulk, Member

LISTED = DATA_DIRECTORY_PROOFS | {BACKUP_MANIFEST, BACKUP_LABEL}


def summed_up(members: Sequence[Member]) -> tuple[list[Member], Bulk]:
    """Divide members into those that a manifest lists and the sum of the data directory's others.

    The digest is the SHA-256 of their lines `name NUL bytes NUL sha256 newline`, in the order of their names.
    """
    listed = [each for each in members if not is_bulk(each.name)]
    others = sorted((each for each in members if is_bulk(each.name)), key=lambda each: each.name)
    digest = hashlib.sha256()
    for each in others:
        digest.update(f"{each.name}\0{each.bytes}\0{each.sha256}\n".encode(errors="surrogateescape"))
    return listed, Bulk(files=len(others), bytes=sum(each.bytes for each in others), sha256=digest.hexdigest())


def is_bulk(name: str) -> bool:
    """Tell whether a member is one of the many that may be summed up.

    >>> is_bulk("postgres-data/base/5/INCREMENTAL.1259"), is_bulk("postgres-data/PG_VERSION"), is_bulk("manifest.json")
    (True, False, False)
    """
    return name.startswith(f"{DATA_DIRECTORY}/") and name not in LISTED
