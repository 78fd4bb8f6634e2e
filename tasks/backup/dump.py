"""The step that dumps a database into an archive under construction, with the census of exactly what it wrote."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.adapters.archive.writer import PartialArchive, segment
from tasks.adapters.host.streams import Observer, Tail, watched
from tasks.adapters.postgres import pg_programs
from tasks.adapters.postgres.census import census_reader
from tasks.adapters.postgres.databases import oversized_values
from tasks.adapters.postgres.facts import database_facts
from tasks.adapters.postgres.server import Server, server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, Session, session
from tasks.core.archive.layout import DUMP_MEMBERS, ROLES_MEMBER
from tasks.core.archive.manifest import Census, DatabaseFacts, Format
from tasks.core.dump.sql import TRAILER
from tasks.core.errors import BackupError, DumpCutShort, Refused
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack.installation import Installation
from tasks.progress import progress
from tasks.step import step

logger = logging.getLogger(__name__)

ROLES_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Dumped:
    """What a dump was of: the moment of its snapshot, the database, and the census of its content; without one, `no_census` says why."""

    at: datetime
    facts: DatabaseFacts
    census: Census | None
    no_census: str = ""


@step(name="dump database", run_name="dump {installation.database.name}")
def dump_database(installation: Installation, archive: PartialArchive, limits: DumpLimits) -> Dumped:
    """Write the dump and the roles as the archive's next segment; safe to repeat: a retry starts over at the segment's beginning.

    Dump and facts are of one snapshot, and the census is read off the dump's own bytes. Reading it only looks on: where we cannot read what
    pg_dump has written to its end, the backup is as good, and has no census. Raise Refused, before the dump starts, for a database
    without tables and for a value that no dump can carry.
    """
    with server_of(installation) as server, _snapshot_session(server, installation.database.name) as opened:
        # Our clock, as everywhere: containers have no other, and ages must not be differences between two.
        at = datetime.now(UTC)
        snapshot = opened.value("SELECT pg_export_snapshot()")
        facts = database_facts(opened)
        refuse_what_no_dump_can_carry(opened, installation)

        with segment(archive, "database", on_bytes=lambda raw, _: tell(raw)) as part, progress("dump") as tell:
            observer = Observer(census_reader(archive.format), name="census")
            chunks = pg_programs.dump_database(
                installation, installation.database.name, archive.format, snapshot=snapshot, limits=limits
            )
            tail = Tail()
            try:
                stream = observer.watch(watched(chunks, tail.see))
                part.add_stream(DUMP_MEMBERS[archive.format], stream, mtime=at)
            except BaseException:
                chunks.close()
                observer.abandon()
                raise
            census, no_census = _census_if_readable(observer, archive.format, tail)
            roles = pg_programs.dump_roles(installation, timeout_seconds=ROLES_TIMEOUT_SECONDS, encoding=facts.encoding)
            part.add_bytes(ROLES_MEMBER, roles, mtime=at)
    return Dumped(at, facts, census, no_census)


def _census_if_readable(observer: Observer[Census], archive_format: Format, tail: Tail) -> tuple[Census | None, str]:
    """Give the census, or why there is none; raise DumpCutShort for a dump that is not whole, though pg_dump said so.

    Whether a plain dump is whole its last lines tell, whatever of it we can read; a custom dump runs out before its announced end.
    """
    try:
        return observer.finish(), ""
    except DumpCutShort:
        if archive_format == "fast" or TRAILER not in tail.bytes:
            raise
        reason = "a statement of the dump has no end for our reader"
    except BackupError as error:
        if archive_format == "guide" and TRAILER not in tail.bytes:
            raise DumpCutShort("the dump has no end mark: it was cut short") from error
        reason = error.message
    except Exception as error:
        if archive_format == "guide" and TRAILER not in tail.bytes:
            raise
        logger.exception("The dump's reader failed")
        reason = f"our reader failed: {type(error).__name__}: {error}"
    logger.warning("No census: %s", reason)
    return None, reason


def refuse_what_no_dump_can_carry(opened: Session, installation: Installation) -> None:
    """Raise Refused for a database that is empty, or holds a value too big for any dump."""
    tables = opened.value("SELECT count(*) FROM pg_stat_user_tables")
    if not tables:
        raise Refused(
            f"database {installation.database.name} holds no table: there is nothing to back up",
            hint="did PostgreSQL start on an empty data directory? compare the mount of its data with the image's PGDATA",
        )
    if oversized := oversized_values(opened):
        raise Refused(
            f"a dump cannot carry everything: {'; '.join(oversized)} (limit: 1 GiB)",
            hint="take an online backup instead: mailarchiver-backup backup online",
        )


@contextmanager
def _snapshot_session(server: Server, database: str) -> Iterator[Session]:
    """Open a session inside a read-only transaction that sees one moment, and may be idle while pg_dump works in its snapshot."""
    with session(
        server,
        database,
        purpose="snapshot",
        answer_seconds=LONG_ANSWER_SECONDS,
    ) as opened:
        opened.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield opened
