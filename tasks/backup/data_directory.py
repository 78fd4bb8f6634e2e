"""The steps that copy a data directory: cold, from a server that was shut down; online, by `pg_basebackup`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.segment import Segment
from tasks.adapters.archive.writer import PartialArchive, segment
from tasks.adapters.engine import container_files
from tasks.adapters.host.directory_copy import FirstPass, copy_changes, copy_directory
from tasks.adapters.host.outside_files import DATA_FILE, read_outside
from tasks.adapters.host.streams import watched
from tasks.adapters.postgres import pg_programs
from tasks.adapters.postgres.facts import database_facts
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import session
from tasks.backup.scratch import scratch_beside
from tasks.core.archive.layout import BACKUP_MANIFEST, BACKUP_MANIFEST_NAME, DATA_DIRECTORY
from tasks.core.archive.manifest import DatabaseFacts
from tasks.core.archive.tar_reader import Limits, TarStream
from tasks.core.errors import ArchiveDamaged, BackupError, ProgramFailed, Refused
from tasks.core.policy.copy_plan import CopyPlan
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack.installation import Installation
from tasks.core.stack.pg_control import PG_CONTROL_NAME, ControlData, needed_after_shutdown, read_control
from tasks.progress import progress
from tasks.recovery.stopped_services import Loan
from tasks.run.data_users import refuse_other_users
from tasks.step import step

logger = logging.getLogger(__name__)

WAL_SEGMENT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class DataPlan:
    """What a copy of the data directory is about, found out while the server still runs."""

    facts: DatabaseFacts
    bytes: int
    wal_segment_bytes: int


@dataclass(frozen=True, slots=True)
class Since:
    """What an incremental backup is taken against: a backup's name, and PostgreSQL's manifest of it."""

    name: str
    manifest: bytes


@dataclass(frozen=True, slots=True)
class BaseBackup:
    """What `pg_basebackup` has sent: the moment of its end, and its own manifest."""

    at: datetime
    manifest: bytes


@dataclass(frozen=True, slots=True)
class FirstCopy:
    """A copy of the running server's files, and what it saw of them."""

    scratch: Path
    seen: FirstPass


@step(name="plan data copy")
def plan_data_copy(installation: Installation) -> DataPlan:
    """Gather the facts, and refuse what a copy of the data directory would not hold or must not touch.

    Raise Refused for tablespaces outside the data directory, and where another container mounts the data: two servers on one
    directory ruin it, and a copy taken meanwhile is worth nothing.
    """
    refuse_other_users(installation)
    with server_of(installation) as server, session(server, installation.database.name, purpose="plan") as opened:
        outside = opened.execute("SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')")
        if outside:
            raise Refused(
                f"tablespace {outside[0][0]} lies outside the data directory, which is all that this method copies",
                hint="take a hot backup, or move its tables: ALTER TABLE ... SET TABLESPACE pg_default",
            )
        size = opened.value("SELECT sum(pg_database_size(oid)) FROM pg_database")
        wal = opened.value("SELECT pg_size_bytes(current_setting('wal_segment_size'))")
        return DataPlan(database_facts(opened), int(size), int(wal))


@contextmanager
def first_copy(installation: Installation, archive: PartialArchive, plan: CopyPlan) -> Iterator[FirstCopy | None]:
    """Copy the data directory beside the archive while the stack runs, where the plan says so; remove the copy at the end of the block."""
    place = data_place(installation)
    if plan.way == "stream" or place is None:
        yield None
        return
    with scratch_beside(installation, archive) as scratch:
        yield FirstCopy(scratch, copy_while_running(place, scratch))


@step(name="copy data files first", retries=0)
def copy_while_running(place: Path, scratch: Path) -> FirstPass:
    """Copy the running server's files: worth nothing by themselves, but most of them need not be copied again."""
    with progress("first copy") as tell:
        return copy_directory(place, scratch, on_bytes=tell)


@step(name="copy data files", retries=0)
def copy_stopped_data(
    installation: Installation,
    archive: PartialArchive,
    loan: Loan,
    wal_segment_bytes: int,
    first: FirstCopy | None = None,
) -> datetime:
    """Copy the data directory of the stopped server into the archive and return the moment; give the services back by then.

    With a first copy only what changed since is copied while the stack is down, and compressed when it runs again.

    Raise BackupError, with the services back, unless pg_control says "shut down" before and after and nobody started a container meanwhile.
    """
    place = data_place(installation)
    before = _require_shut_down(installation, place)
    moment = datetime.now(UTC)
    if first is not None and place is not None:
        changed = copy_changes(place, first.scratch, first.seen)
        logger.info("Copied %d changed bytes while the stack was down", changed)
        _require_untouched(installation, place, before, loan)
        loan.give_back()
        place = first.scratch
    with segment(archive, "data", on_bytes=lambda raw, _: tell(raw)) as part, progress("copy data") as tell:
        if place is not None:
            part.add_tree(
                DATA_DIRECTORY,
                place,
                exclude=lambda name: not needed_after_shutdown(name, before, wal_segment_bytes),
                follow=("pg_wal",),
            )
        else:
            for entry, chunks in _container_files(installation):
                if needed_after_shutdown(entry.name, before, wal_segment_bytes):
                    _add_entry(part, entry, chunks)
        if first is None:
            _require_untouched(installation, place, before, loan)
            loan.give_back()
    return moment


def _require_untouched(installation: Installation, place: Path | None, before: ControlData, loan: Loan) -> None:
    """Raise BackupError where somebody started the server while its files were copied."""
    after = _require_shut_down(installation, place)
    again = loan.running_again()
    if again or after != before:
        raise BackupError(
            f"somebody started {', '.join(again) or 'PostgreSQL'} while its files were copied; the copy was thrown away",
            hint="run the backup again",
        )


@step(name="base backup", retries=1)
def copy_running_data(
    installation: Installation, archive: PartialArchive, limits: DumpLimits, since: Since | None = None
) -> BaseBackup:
    """Copy the running server's data directory by pg_basebackup, with the WAL it needs; safe to repeat.

    Of the tables only what has changed, where a backup is given that it is taken against.
    """
    label, manifest = "mailarchiver-backup", bytearray()
    # A temporary slot keeps the WAL from being recycled before pg_basebackup fetches it at its end; it goes with its session.
    with (
        server_of(installation) as server,
        session(server, "postgres", purpose="keep WAL") as keeper,
    ):
        keeper.execute(
            "SELECT pg_create_physical_replication_slot('mailarchiver_backup_' || pg_backend_pid(), true, true)"
        )
        with (
            closing(
                pg_programs.base_backup(
                    installation, label=label, limits=limits, since=since.manifest if since else None
                )
            ) as sent,
            segment(archive, "data", on_bytes=lambda raw, _: tell(raw)) as part,
            progress("base backup") as tell,
        ):
            added = 0
            for entry, chunks in _tar_files(sent):
                if not added:  # pg_basebackup sends no entry for the data directory itself
                    part.add_directory(DATA_DIRECTORY, mtime=entry.mtime, mode=0o700, uid=entry.uid, gid=entry.gid)
                kept = watched(chunks, manifest.extend) if entry.name == BACKUP_MANIFEST_NAME else chunks
                _add_entry(part, entry, kept)
                added += 1
            names = {member.name for member in part.members}
            if not {BACKUP_MANIFEST, f"{DATA_DIRECTORY}/{PG_CONTROL_NAME}", f"{DATA_DIRECTORY}/backup_label"} <= names:
                raise ProgramFailed(f"pg_basebackup exited with 0 but sent only {added} files, no whole base backup")
    return BaseBackup(datetime.now(UTC), bytes(manifest))


def data_place(installation: Installation) -> Path | None:
    """Give the data directory as we can read it here; None where only Docker can."""
    place = installation.data_directory
    return place if place is not None and os.access(place, os.R_OK | os.X_OK) else None


def _require_shut_down(installation: Installation, place: Path | None) -> ControlData:
    if place is not None:
        content = read_outside(place / PG_CONTROL_NAME, DATA_FILE)[0]
    else:
        path = f"{installation.pgdata}/{PG_CONTROL_NAME}"
        stream = container_files.get_archive_stream(installation.postgres.container_id, path)
        content = b"".join(b"".join(chunks) for _, chunks in _tar_files(stream))
    control = read_control(content)
    if not control.is_shut_down:
        raise BackupError(
            f"PostgreSQL did not shut down cleanly: pg_control says {control.state!r}",
            hint="look at its log; is the stop timeout long enough?",
        )
    return control


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file or directory of a tar stream; `name` is relative to the data directory, "" for that itself."""

    name: str
    is_directory: bool
    size: int
    mode: int
    uid: int
    gid: int
    mtime: datetime


def _container_files(installation: Installation) -> Iterator[tuple[_Entry, Iterator[bytes]]]:
    stream = container_files.get_archive_stream(installation.postgres.container_id, installation.pgdata)
    return _tar_files(stream, strip=1)


def _tar_files(chunks: Iterator[bytes], *, strip: int = 0) -> Iterator[tuple[_Entry, Iterator[bytes]]]:
    """Yield a tar stream's files and directories, without the first `strip` parts of their names; then read it to its very end.

    A file's bytes can be read until the next entry is asked for. Raise Refused for a link: a tablespace, or a pg_wal elsewhere.
    """
    stream = TarStream(chunks, Limits())
    try:
        for found in stream.entries():
            entry = _Entry(
                "/".join(found.name.split("/")[strip:]),
                found.is_directory,
                found.size,
                found.mode,
                found.uid,
                found.gid,
                datetime.fromtimestamp(found.mtime_seconds, UTC),
            )
            yield entry, stream.content()
    except ArchiveDamaged as error:
        raise BackupError(f"the copy of the data directory ended early: {error.message}", transient=True) from error
    except Refused as error:
        error.hint = "tablespaces and a pg_wal elsewhere are not supported by this method; take a hot backup"
        raise


def _add_entry(part: Segment, entry: _Entry, chunks: Iterator[bytes]) -> None:
    name = f"{DATA_DIRECTORY}/{entry.name}" if entry.name else DATA_DIRECTORY
    if entry.is_directory:
        part.add_directory(name, mtime=entry.mtime, mode=entry.mode, uid=entry.uid, gid=entry.gid)
        return
    member = part.add_sized(name, entry.size, chunks, mtime=entry.mtime, mode=entry.mode, uid=entry.uid, gid=entry.gid)
    if member.bytes != entry.size:
        raise BackupError(f"{name} came with {member.bytes} bytes, {entry.size} were announced", transient=True)
