"""The steps of a verification: restore on staging, compare, conclude, record."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from tasks.adapters.archive.reader import CheckedArchive
from tasks.adapters.archive.repository import (
    find_backup,
    read_record,
    write_restored_census,
    write_verification,
)
from tasks.adapters.host.outside_files import KEY, sha256_outside
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.census import take_census
from tasks.adapters.postgres.indexes import damaged_indexes
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, session
from tasks.adapters.stack import mail_archiver
from tasks.core.archive.layout import KEYS_DIRECTORY
from tasks.core.archive.manifest import Census, OpenedWith, RestoredCensus, Verdict, Verification
from tasks.core.archive.names import time_in_name
from tasks.core.dump.census import differences, row_count
from tasks.core.errors import ArchiveDamaged, BackupError, ProgramFailed
from tasks.core.policy.limits import DumpLimits
from tasks.core.report.comparisons import MOMENTS, Comparison
from tasks.core.stack.installation import Installation
from tasks.restore.database_beside import Replacement
from tasks.restore.database_restore import restore_dump
from tasks.restore.directory_beside import Copy
from tasks.restore.directory_restore import restore_copy
from tasks.restore.outcome import Restored, RestoreOptions
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import resign
from tasks.step import step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoreTest:
    """What a restore on staging showed; `census` is what is to be recorded as a whole copy's content."""

    restored: Restored
    attachments: int
    census: RestoredCensus | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """The end of a verification: the archive, the verdict on it, and to whom it is encrypted."""

    path: Path
    verification: Verification
    census: RestoredCensus | None = None
    recipients: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Tell whether nothing speaks against the archive: it is equal, or restored where nothing said what to expect."""
        return self.verification.verdict in ("verified", "legacy")

    @property
    def is_open(self) -> bool:
        """Tell whether nothing was found out: the archive could not be opened here."""
        return self.verification.verdict == "not verifiable"

    @property
    def problem(self) -> str:
        """Tell in a sentence what speaks against it."""
        return f"{self.archive} is {self.verification.verdict}: {'; '.join(self.verification.differences)}"

    @property
    def archive(self) -> str:
        """Name of the archive's file."""
        return self.path.name


class NotProven(BackupError):
    """A verification ended with a verdict that proves nothing, or the contrary; `verified` holds it."""

    def __init__(self, verified: Verified) -> None:
        super().__init__(verified.problem)
        self.verified = verified


def run_restore_test(
    staging: Installation, archive: CheckedArchive, limits: DumpLimits, *, now: datetime, foreign: str = ""
) -> RestoreTest:
    """Restore an archive on staging by the code that production would use, with every proof; the application is started last.

    Before that the mail accounts are disabled and their secrets blanked. An application whose data differs is never started, nor one whose
    data are a stranger's and bring code.
    """
    if archive.kind == "physical":
        return _run_copy_test(staging, archive, limits, now=now)
    proof = _StagingProof(archive)
    options = RestoreOptions(neutralise=True, start_application=True, limits=limits, foreign=foreign)
    restored, _ = restore_dump(staging, archive, options, now=now, proofs=[proof])
    return RestoreTest(replace(restored, comparisons=(*restored.comparisons, *proof.comparisons)), proof.attachments)


def _run_copy_test(staging: Installation, archive: CheckedArchive, limits: DumpLimits, *, now: datetime) -> RestoreTest:
    """Restore a whole copy as production would (private server, swap, probe), with its rows counted and compared before the swap."""
    proof = _CopyProof(archive, limits, now)
    options = RestoreOptions(neutralise=True, start_application=True, limits=limits)
    restored, _ = restore_copy(staging, archive, options, now=now, proofs=[proof])
    moment = MOMENTS.get(archive.manifest.method) if archive.manifest else None
    return RestoreTest(
        replace(
            restored,
            rows=proof.rows,
            tables=proof.tables,
            comparisons=(*restored.comparisons, *proof.comparisons),
            notes=(*restored.notes, *proof.notes, *([moment] if moment else [])),
        ),
        restored.attachments,
        proof.to_record,
    )


class _CopyProof:
    """What staging can afford to look at in a whole copy besides its files: every row, against the census that was recorded before."""

    def __init__(self, archive: CheckedArchive, limits: DumpLimits, now: datetime) -> None:
        self._archive, self._limits, self._now = archive, limits, now
        record = read_record(archive.path)
        self._recorded = record.restored_census if record is not None else None
        self._has_record = record is not None
        self.rows = self.tables = 0
        self.comparisons: list[Comparison] = []
        self.notes: list[str] = []
        self.to_record: RestoredCensus | None = None

    def __call__(self, view: Installation, archive: CheckedArchive, copy: Copy) -> list[str]:
        wrong = check_keys(archive, copy.keys)
        self.comparisons.append("keys")
        try:
            census = count_copy(view, self._limits)
        except ProgramFailed as error:
            # A whole copy may hold what no dump can carry; its rows are read all the same.
            self.notes.append(f"no census: {error.message}")
            self.rows, self.tables = count_rows(view)
            self.comparisons.append("rows")
            return wrong
        self.rows, self.tables = row_count(census), len(census.tables)
        return [*wrong, *self._compare(census)]

    def _compare(self, census: Census) -> list[str]:
        before = self._recorded
        if before is None:
            if self._has_record:
                self.to_record = RestoredCensus(at=self._now, archive_sha256=self._archive.sha256, census=census)
                self.comparisons.append("census recorded")
            else:
                self.comparisons.append("rows")
            return []
        self.comparisons.append("recorded census")
        if before.archive_sha256 != self._archive.sha256:
            self.notes.append(
                f"the archive's bytes are others than on {before.at:%Y-%m-%d}, when its census was recorded"
            )
        return differences(before.census, census)


@step(name="take census of copy", retries=0)
def count_copy(view: Installation, limits: DumpLimits) -> Census:
    """Count and digest all that a whole copy's database holds, through its private server."""
    return take_census(view, view.database.name, "guide", limits)


class _StagingProof:
    """What staging can afford to look at besides the census."""

    def __init__(self, archive: CheckedArchive) -> None:
        self._archive = archive
        self.attachments = 0
        self.comparisons: tuple[Comparison, ...] = ()

    def __call__(self, installation: Installation, new: Replacement, brings_code: bool) -> list[str]:
        if brings_code:  # a cast, a policy or an operator of its own could be called by whatever is asked
            self.comparisons = ("keys",)
            return check_keys(self._archive, new.keys)
        self.attachments, wrong = check_attachments(installation, new.database)
        damaged = check_structure(installation, new.database)
        self.comparisons = ("attachments", "keys") if damaged is None else ("attachments", "B-trees", "keys")
        return [*wrong, *(damaged or []), *check_keys(self._archive, new.keys)]


@step(name="recompute attachments' SHA-256")
def check_attachments(installation: Installation, database: str) -> tuple[int, list[str]]:
    """Recompute the SHA-256 of every attachment; return their number and what is wrong in words."""
    with (
        server_of(installation) as server,
        session(server, database, purpose="prove", answer_seconds=LONG_ANSWER_SECONDS) as opened,
    ):
        return mail_archiver.count_attachments(opened)


@step(name="check constraints and indexes")
def check_structure(installation: Installation, database: str) -> list[str] | None:
    """Name damaged indexes in words; None where the image cannot look.

    An index that a dump makes is valid once it is made; only that of a partitioned table is not while it lacks a
    partition's, as the dump says (`ON ONLY`, `ATTACH PARTITION`), and the definitions are compared.
    """
    with (
        server_of(installation) as server,
        session(server, database, purpose="prove", answer_seconds=LONG_ANSWER_SECONDS) as opened,
    ):
        return damaged_indexes(opened, thorough=False)


@step(name="count rows")
def count_rows(view: Installation) -> tuple[int, int]:
    """Count the rows of all tables, reading each from its first to its last; return rows and tables."""
    with (
        server_of(view) as server,
        session(server, view.database.name, purpose="prove", answer_seconds=LONG_ANSWER_SECONDS) as opened,
    ):
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
    found = {str(path.relative_to(keys)): sha256_outside(path, KEY) for path in keys.rglob("*") if path.is_file()}
    changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return [f"key file {name} differs" for name in changed]


def conclude(
    archive: CheckedArchive, tested: RestoreTest, *, now: datetime, begun: float, opened_with: OpenedWith = ""
) -> Verified:
    """Turn a drill into a verdict bound to the archive's bytes: equal is verified, or `legacy` where nothing said what to expect."""
    verdict: Verdict = "verified" if archive.manifest and _told_what_to_expect(tested.restored) else "legacy"
    if tested.restored.differences:
        verdict = "different"
    moment = archive.manifest.created_at if archive.manifest else time_in_name(archive.name)
    return Verified(
        archive.path,
        Verification(
            verdict=verdict,
            at=now,
            archive_sha256=archive.sha256,
            rows=tested.restored.rows,
            tables=tested.restored.tables,
            attachments=tested.attachments,
            differences=list(tested.restored.differences),
            restore_seconds=tested.restored.seconds,
            seconds=round(time.monotonic() - begun, 3),
            data_age_seconds=(now - moment).total_seconds() if moment else None,
            notes=list(tested.restored.notes),
            compared=list(tested.restored.comparisons),
            opened_with=opened_with,
        ),
        tested.census if verdict == "verified" else None,
        tuple(archive.manifest.encryption.recipients) if archive.manifest and archive.manifest.encryption else (),
    )


def _told_what_to_expect(restored: Restored) -> bool:
    return bool({"census", "files"} & set(restored.comparisons))


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
            restore_seconds=0.0, seconds=round(time.monotonic() - begun, 3), compared=[],
        ),
    )  # fmt: skip


@step(name="record verdict")
def record_verdict(config: InstallationConfig, verified: Verified) -> None:
    """Write the verdict, and a census taken for the first time, into the archive's record, signed where that was authentic.

    One without a record (legacy) keeps none, and another's record is not touched.
    """
    path = _record_of(config, verified)
    write_verification(path, verified.verification, resign(config))
    if verified.census is not None:
        write_restored_census(path, verified.census, resign(config))


def _record_of(config: InstallationConfig, verified: Verified) -> Path:
    """Give the path whose record gets the verdict: of a copy the repository's own, where that has the very same archive."""
    here = config.repository / verified.path.name
    if config.elsewhere is None or not here.is_file():
        return verified.path
    mine, theirs = read_record(here), read_record(verified.path)
    return here if mine is not None and theirs is not None and mine.sha256 == theirs.sha256 else verified.path
