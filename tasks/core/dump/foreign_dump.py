"""Dumps that were taken with other options than ours, or by `pg_dumpall`: what they are, and what of them can be loaded.

The guide's archives hold whatever somebody's script put there. What only clears the way in a database that holds
something (`--clean`), or makes the database itself (`--create`), is passed over: the replacement is new and empty. Of a
cluster's dump the one database is taken. A dump that cannot become an archive again (rows without tables, tables
without rows) is told for what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from tasks.core.archive.manifest import Census
from tasks.core.byte_text import shown, text_of
from tasks.core.dump.custom import Head
from tasks.core.dump.events import ClusterDump, Connect, CopyBegin, DumpComplete, DumpEvent, Statement, Title
from tasks.core.dump.insert_rows import inserted_rows
from tasks.core.dump.statements import is_session_setting
from tasks.core.errors import ArchiveDamaged, Refused

CUSTOM_MAGIC = b"PGDMP"
GZIP_MAGIC = b"\x1f\x8b"
_DUMP_HEADS = {
    b"-- PostgreSQL database dump": "a plain SQL dump",
    b"-- PostgreSQL database cluster dump": "a dump of a whole server by pg_dumpall",
}
_OF_THE_DATABASE = re.compile(
    rb"(?:CREATE|ALTER|DROP)\s+DATABASE\s|ALTER\s+ROLE\s.*\sIN\s+DATABASE\s|(?:COMMENT|SECURITY\s+LABEL\s.*)\s*ON\s+DATABASE\s|(?:GRANT|REVOKE)\s.*\sON\s+DATABASE\s",
    re.DOTALL,
)
_ENCODING = re.compile(rb"SET client_encoding = '([A-Za-z0-9_]+)';")
_UNUSUALLY_QUOTED = re.compile(rb'CREATE TABLE "[a-z_][a-z0-9_]*"\.')
_DUMPED_BY = re.compile(rb"-- Dumped by pg_dump version (\d{1,3})(?!\d)")


@dataclass
class Shape:
    """What was seen of a dump while it passed: enough to tell what it is, and with which options it was taken."""

    databases: list[str] = field(default_factory=list)
    tables: int = 0
    with_rows: int = 0
    inserts: int = 0
    named_columns: bool = False
    owned: int = 0
    comments: int = 0
    objects: int = 0
    quoted_names: bool = False
    encoding: str = "UTF8"
    major: int | None = None
    complete: bool = False

    def see(self, event: Head | DumpEvent) -> None:
        """Look at one event of the part that is loaded."""
        match event:
            case Title(kind, _, _, owner):
                self.objects += 1
                self.owned += bool(owner)
                self.comments += kind == "COMMENT"
                self.tables += kind == "TABLE"
                self.with_rows += kind == "TABLE DATA"
            case CopyBegin():
                self.with_rows += 1
            case Statement(sql, _):
                if encoding := _ENCODING.fullmatch(sql):
                    self.encoding = text_of(encoding[1])
                elif (rows := inserted_rows(sql)) is not None:
                    self.inserts += 1
                    self.named_columns = self.named_columns or "(" in rows.target
                elif _UNUSUALLY_QUOTED.match(sql):
                    self.quoted_names = True
            case DumpComplete():
                self.complete = True

    def pg_dump_options(self) -> list[str]:
        """Give the options with which pg_dump words a database as this dump does."""
        options = []
        if self.objects and not self.owned:
            options.append("--no-owner")
        if self.encoding != "UTF8":
            options.append(f"--encoding={self.encoding}")
        if self.objects and not self.comments:
            options.append("--no-comments")
        if self.quoted_names:
            options.append("--quote-all-identifiers")
        if self.inserts:
            options.append("--column-inserts" if self.named_columns else "--inserts")
        return options

    def comparable(self, census: Census) -> Census:
        """Leave out what depends on the options: how large objects of one owner and the same grants are put together."""
        kept = {name: digest for name, digest in census.schema_objects.items() if not name.startswith("BLOB")}
        return census.model_copy(update={"schema_objects": kept})

    def refuse_half_a_dump(self, file: str) -> None:
        """Raise Refused for rows without their tables, and for tables without any row."""
        if not self.tables and self.with_rows:
            raise Refused(
                f"{file} is a data-only dump (pg_dump --data-only): it holds rows, but none of the tables they belong to",
                hint="restore a backup that holds both; or load it by hand into a database whose application has made its tables",
            )
        if self.tables and not self.with_rows and not self.inserts:
            raise Refused(
                f"{file} is a schema-only dump (pg_dump --schema-only): it holds tables, but not a single row of mail",
                hint="restore a backup that holds both",
            )


_Event = TypeVar("_Event", bound=Head | DumpEvent)


def loadable(events: Iterable[_Event], database: str, shape: Shape) -> Iterator[_Event]:
    """Pass on what of a dump belongs into the one new, empty database; of a whole server's dump, into the one named `database`.

    Raise Refused where a server's dump holds no such database, or a dump holds several.
    """
    cluster, inside, begun = False, True, False
    for event in events:
        match event:
            case ClusterDump():
                cluster, inside = True, False
                continue
            case Connect(name):
                shape.databases.append(name)
                if not cluster and len(set(shape.databases)) > 1:
                    raise Refused(
                        f"the dump goes into several databases: {_listed(shape.databases)}",
                        hint="take a dump of the one database: pg_dump",
                    )
                inside, begun = not cluster or name == database, False
                continue
            case _ if not inside:
                continue
            case Title():
                begun = begun or event.kind not in ("DATABASE", "DATABASE PROPERTIES")
            case Statement(sql, _) if not is_session_setting(sql) and (not begun or _OF_THE_DATABASE.match(sql)):
                continue  # what clears the way (before the first object is named), and the database itself
            case DumpComplete() if cluster:
                inside = False
        shape.see(event)
        yield event
    if cluster and not shape.complete:
        if database in shape.databases:
            raise ArchiveDamaged(f"the part of database {shown(database)} has no end mark: the dump was cut short")
        raise Refused(
            f"the dump is one of a whole server (pg_dumpall), of the databases {_listed(shape.databases) or 'none'};"
            f" none is {shown(database)}",
            hint="name the database that the application uses in its connection string as the dump does",
        )


def describe(head: bytes) -> str | None:
    """Say what bytes are, judged by their beginning, where PostgreSQL's programs have written them; None for anything else.

    >>> describe(b"PGDMP\\x01"), describe(b"--\\n-- PostgreSQL database dump\\n--\\n"), describe(b"mailarchiver-backup-1")
    ("a dump in pg_dump's custom format", 'a plain SQL dump', None)
    """
    if head.startswith(CUSTOM_MAGIC):
        return "a dump in pg_dump's custom format"
    if head.startswith(b"toc.dat\0"):
        return "a dump in pg_dump's tar format"
    text = head.lstrip(b"\xef\xbb\xbf\r\n -")
    for beginning, words in _DUMP_HEADS.items():
        if text.startswith(beginning.removeprefix(b"-- ")):
            return words
    return None


def refuse_bare_dump(head: bytes, path: str) -> None:
    """Raise Refused for a file that is no archive but a dump by itself, with the way to make an archive of it.

    `head` is the file's beginning, unpacked where it was compressed.
    """
    found = describe(head)
    if found is None:
        return
    # Whatever pg_dump's own formats hold, compressed or not, pg_restore writes SQL of it.
    put = "docker compose exec -T postgres pg_restore --file=- <" if "format" in found else "zcat -f"
    raise Refused(
        f"{path} is {found} by itself, not an archive: without the data-protection keys",
        hint=f"make one in the guide's form, with a name N like mailarchiver-backup-20261124-101112: mkdir N && {put} {path} > N/database.sql"
        " && cp -r data-protection-keys docker-compose.yml N/ && tar -czf N.tar.gz N",
    )


def refuse_other_content(head: bytes, file: str, kind: str) -> None:
    """Raise Refused where an archive's dump is of another kind than its name says."""
    found = describe(head)
    if head.startswith(GZIP_MAGIC):
        raise Refused(
            f"{file} is compressed by itself",
            hint=f"unpack the archive, gunzip the dump to {file}, and pack it again",
        )
    if found is None or "SQL" in found or "server" in found:
        return
    if kind == "sql":
        raise Refused(
            f"{file} is {found}, not SQL",
            hint="unpack the archive, write SQL of it (docker compose exec -T postgres pg_restore --file=- < IT > database.sql), and pack it again",
        )


def dumped_by_major(head: bytes) -> int | None:
    """Give the major version of the pg_dump that wrote a plain dump, by its own words; None where it does not say.

    >>> dumped_by_major(b"-- Dumped from database version 15.4\\n-- Dumped by pg_dump version 16.1 (Debian)\\n")
    16
    """
    found = _DUMPED_BY.search(head)
    return int(found[1]) if found else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(shown(name) for name in dict.fromkeys(names))
