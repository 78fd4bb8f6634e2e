"""The steps of a verification: restore on staging, compare, conclude, record."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tasks.adapters import application, databases
from tasks.adapters.archive_reader import CheckedArchive
from tasks.adapters.databases import set_password
from tasks.adapters.files import rename
from tasks.adapters.postgres import server_of, session
from tasks.adapters.repository import find_backup, list_backups, write_verification
from tasks.archives import KEYS_DIRECTORY
from tasks.core.due import stalest
from tasks.core.errors import ArchiveDamaged, BackupError, ProgramFailed, UsageError
from tasks.core.installation import Installation
from tasks.core.limits import DumpLimits
from tasks.core.manifest import Verdict, Verification
from tasks.core.names import time_in_name
from tasks.physical import (
    copy_beside,
    damaged_indexes,
    extract_copy,
    host_place,
    private_server,
    prove_copy,
    verify_base_backup,
)
from tasks.pruning import own_records
from tasks.replacement import Replacement
from tasks.restoring import Restored, RestoreOptions, restore_dump, start_and_probe
from tasks.staging import start_postgres
from tasks.step import step
from tasks.work import Work

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drill:
    """What a restore on staging showed."""

    restored: Restored
    attachments: int


@dataclass(frozen=True, slots=True)
class Verified:
    """The end of a verification: the archive and the verdict on it."""

    path: Path
    verification: Verification

    @property
    def archive(self) -> str:
        """Name of the archive's file."""
        return self.path.name


def choose_backup(work: Work, backup: str) -> str:
    """Turn "stalest" into the name of the backup whose verification lies longest ago; any other word stands for itself."""
    if backup != "stalest":
        return backup
    found = stalest(own_records(work, list_backups(work.repository)))
    if found is None:
        raise UsageError(f"there is no backup of {work.id} in {work.repository}", hint="mailarchiver-backup backup hot")
    return found.manifest.name


def drill_restore(staging: Installation, archive: CheckedArchive, limits: DumpLimits, *, now: datetime) -> Drill:
    """Restore an archive on staging by the code that production would use, with every proof; the application is started last.

    Before that the mail accounts are disabled and their secrets blanked, and whoever differs is not started at all.
    """
    if archive.kind == "physical":
        return _drill_copy(staging, archive, now=now)
    proof = _StagingProof(archive)
    options = RestoreOptions(neutralise=True, start_application=True, limits=limits)
    restored, _ = restore_dump(staging, archive, options, now=now, proofs=[proof])
    return Drill(restored, proof.attachments)


def _drill_copy(staging: Installation, archive: CheckedArchive, *, now: datetime) -> Drill:
    """Start a private server on the extracted data directory, prove it, and let the staging stack run on it."""
    begun = time.monotonic()
    place = host_place(staging)
    keys = staging.keys_mount.host_path if staging.keys_mount else None
    with copy_beside(staging, place, keys, now=now) as copy:
        extract_copy(archive, copy)
        wrong = [*verify_base_backup(staging, archive, copy), *check_keys(archive, copy.keys)]
        with private_server(staging, archive, copy) as view:
            attachments, damaged = prove_copy(view, archive, thorough=True)
            wrong += damaged
            rows, tables = count_rows(view)
            with server_of(view) as server, session(server, view.database.name, purpose="neutralise") as opened:
                application.neutralise(opened)
                set_password(opened, staging.database.superuser, staging.database.superuser_password)
        if not wrong:
            for current, extracted in ((place, copy.data), (keys, copy.keys)):
                if current is not None and extracted is not None:
                    rename(extracted, current)
            start_and_probe(start_postgres(staging))
    return Drill(
        Restored(
            backup=archive.name, kept=None, differences=tuple(wrong), downtime_seconds=0.0,
            seconds=round(time.monotonic() - begun, 3), quarantined=0, rows=rows, tables=tables,
        ),
        attachments,
    )  # fmt: skip


class _StagingProof:
    """What staging can afford to look at besides the census."""

    def __init__(self, archive: CheckedArchive) -> None:
        self._archive = archive
        self.attachments = 0

    def __call__(self, installation: Installation, new: Replacement) -> list[str]:
        self.attachments, wrong = check_attachments(installation, new.database)
        return [*wrong, *check_structure(installation, new.database), *check_keys(self._archive, new.keys)]


@step(name="recompute attachments' SHA-256")
def check_attachments(installation: Installation, database: str) -> tuple[int, list[str]]:
    """Recompute the SHA-256 of every attachment; return their number and what is wrong in words."""
    with server_of(installation) as server, session(server, database, purpose="prove") as opened:
        return application.count_attachments(opened)


@step(name="check constraints and indexes")
def check_structure(installation: Installation, database: str) -> list[str]:
    """Name damaged indexes in words.

    An index that a dump makes is valid once it is made; only that of a partitioned table is not while it lacks a partition's, as the dump says
    (`ON ONLY`, `ATTACH PARTITION`), and the definitions are compared.
    """
    with server_of(installation) as server, session(server, database, purpose="prove") as opened:
        return damaged_indexes(opened, thorough=False)


@step(name="count rows")
def count_rows(view: Installation) -> tuple[int, int]:
    """Count the rows of all tables, reading each from its first to its last; return rows and tables."""
    with server_of(view) as server, session(server, view.database.name, purpose="prove") as opened:
        return databases.count_rows(opened)


@step(name="compare keys")
def check_keys(archive: CheckedArchive, keys: Path | None) -> list[str]:
    """Compare the extracted key files with the archive's members."""
    expected = {
        member.name.removeprefix(f"{KEYS_DIRECTORY}/"): member.sha256
        for member in archive.members
        if member.name.startswith(f"{KEYS_DIRECTORY}/")
    }
    if keys is None:
        return [f"{len(expected)} key files were not restored"] if expected else []
    found = {
        str(path.relative_to(keys)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in keys.rglob("*")
        if path.is_file()
    }
    changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return [f"key file {name} differs" for name in changed]


def conclude(archive: CheckedArchive, drill: Drill, *, now: datetime, begun: float) -> Verified:
    """Turn a drill into a verdict bound to the archive's bytes: equal is verified, or `legacy` where nothing said what to expect."""
    verdict: Verdict = "verified" if archive.manifest and drill.restored.compared else "legacy"
    if drill.restored.differences:
        verdict = "different"
    moment = archive.manifest.created_at if archive.manifest else time_in_name(archive.name)
    return Verified(
        archive.path,
        Verification(
            verdict=verdict,
            at=now,
            archive_sha256=archive.sha256,
            rows=drill.restored.rows,
            tables=drill.restored.tables,
            attachments=drill.attachments,
            differences=list(drill.restored.differences),
            restore_seconds=drill.restored.seconds,
            seconds=round(time.monotonic() - begun, 3),
            data_age_seconds=(now - moment).total_seconds() if moment else None,
            notes=list(drill.restored.notes),
        ),
    )


def conclude_failure(repository: Path, backup: str, error: BackupError, *, now: datetime, begun: float) -> Verified:
    """Turn an archive's failure to be read or loaded into the verdict `failed`; an error that says nothing of the archive is raised."""
    if not isinstance(error, ArchiveDamaged | ProgramFailed) or error.transient:
        raise error
    path = find_backup(repository, backup)
    return Verified(
        path,
        Verification(
            verdict="failed", at=now, archive_sha256="", rows=0, tables=0, attachments=0,
            differences=[error.message, *([f"What to do: {error.hint}"] if error.hint else [])],
            restore_seconds=0.0, seconds=round(time.monotonic() - begun, 3),
        ),
    )  # fmt: skip


@step(name="record verdict")
def record_verdict(verified: Verified) -> None:
    """Write the verdict into the archive's record; one without a record (legacy) keeps none."""
    write_verification(verified.path, verified.verification)
