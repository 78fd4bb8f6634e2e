"""The census of a database: read off the bytes of a dump."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tasks.adapters.postgres import pg_programs
from tasks.adapters.postgres.load import READING_SETTINGS, milliseconds
from tasks.adapters.postgres.load_table import rows_as_dumped
from tasks.adapters.postgres.server import Server
from tasks.adapters.postgres.session import ANSWER_SECONDS, session
from tasks.core.archive.manifest import Census, Format, TableCensus
from tasks.core.byte_text import shown
from tasks.core.dump.census import CensusTaker, table_of
from tasks.core.dump.custom import read_custom_dump
from tasks.core.dump.events import CopyBegin
from tasks.core.dump.sql import read_sql_dump
from tasks.core.errors import ArchiveDamaged, DumpCutShort, ProgramFailed
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack.installation import Installation


def census_reader(archive_format: Format) -> Callable[[Iterator[bytes]], Census]:
    """Give the function that takes the census of a dump's bytes; it raises ArchiveDamaged for a dump that is not whole."""

    def take(pieces: Iterator[bytes]) -> Census:
        taker = CensusTaker()
        for event in read_sql_dump(pieces) if archive_format == "guide" else read_custom_dump(pieces):
            taker.see(event)
        if not taker.complete:
            raise DumpCutShort("the dump has no end mark: it was cut short")
        return taker.result()

    return take


def take_census(
    installation: Installation,
    database: str,
    archive_format: Format,
    limits: DumpLimits,
    *,
    known: Mapping[str, TableCensus] | None = None,
    options: Sequence[str] = (),
) -> Census:
    """Take the census of a database as it is now, by dumping it to nowhere; of the tables `known` their rows are not read again.

    `options` are pg_dump's for another wording than ours.
    """
    known = known or {}
    chunks = pg_programs.dump_database(
        installation,
        database,
        archive_format,
        snapshot=None,
        limits=limits,
        without_rows_of=[table_of(each) for each in known if _can_be_said(each)],
        wording=options,
    )
    try:
        found = census_reader(archive_format)(chunks)
        return found.model_copy(update={"tables": dict(sorted({**found.tables, **known}.items()))})
    except ArchiveDamaged as error:
        raise ProgramFailed(f"pg_dump of {database} wrote what cannot be read: {error.message}") from error
    finally:
        chunks.close()


def rows_of(
    server: Server, database: str, targets: Sequence[str], limits: DumpLimits, *, encoding: str = ""
) -> dict[str, TableCensus]:
    """Take the census of tables' rows, read by the columns that each COPY target names, in their order.

    The rows come in `encoding`, as the dump that they are compared with has them; without one, in the server's.
    """
    settings = {**READING_SETTINGS, "statement_timeout": milliseconds(limits.total_seconds)}
    answer_seconds = limits.total_seconds + ANSWER_SECONDS
    with session(server, database, purpose="check", settings=settings, answer_seconds=answer_seconds) as opened:
        found: dict[str, TableCensus] = {}
        rows_as_dumped(opened, map(CopyBegin, targets), found, encoding=encoding)
        return found


def _can_be_said(target: str) -> bool:
    """Tell whether a table's name can be given to a program through Docker, which takes only UTF-8."""
    return shown(target) == target
