"""What a load must know of a table or view before it loads it; asked of the new database itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.adapters.postgres.session import Session
from tasks.core.archive.manifest import TableCensus
from tasks.core.dump.census import table_census, table_of
from tasks.core.dump.events import CopyBegin

# Functions of the user's stand in pg_depend; PostgreSQL's own do not.
_TABLE = """
    SELECT c.relkind = 'r' AND NOT EXISTS (
               SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
           EXISTS (
               SELECT FROM pg_depend d WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass) AND (
                   d.classid = 'pg_constraint'::regclass AND d.objid IN (
                       SELECT oid FROM pg_constraint WHERE conrelid IN (SELECT oid FROM family)
                       UNION SELECT oid FROM pg_constraint
                           WHERE contypid IN (SELECT atttypid FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0))
                   OR d.classid = 'pg_attrdef'::regclass AND d.objid IN (
                       SELECT a.oid FROM pg_attrdef a JOIN pg_attribute g ON g.attrelid = a.adrelid AND g.attnum = a.adnum
                           WHERE g.attgenerated <> '' AND a.adrelid IN (SELECT oid FROM family))))
    FROM pg_class c WHERE c.oid = to_regclass(%(table)s)
"""
_FAMILY = """
    WITH RECURSIVE family(oid) AS (
        SELECT to_regclass(%(table)s)::oid
        UNION SELECT i.inhrelid FROM pg_inherits i JOIN family f ON i.inhparent = f.oid JOIN pg_class p ON p.oid = f.oid AND p.relkind = 'p')
"""
_FOREIGN = """
    WITH RECURSIVE used(oid) AS (
        SELECT to_regclass(%(view)s)::oid
        UNION (
            WITH known AS (SELECT oid FROM used)
            SELECT d.refobjid FROM known JOIN pg_rewrite r ON r.ev_class = known.oid
                JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
            UNION SELECT i.inhrelid FROM known JOIN pg_inherits i ON i.inhparent = known.oid))
    SELECT EXISTS (SELECT FROM used JOIN pg_class c USING (oid) WHERE c.relkind = 'f')
"""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A COPY's target: whether its rows are all that a dump would give of it, and whether a check of its rows may ask other tables."""

    is_plain: bool
    asks_others: bool


def table_facts(main: Session, table: CopyBegin) -> TableFacts:
    """Look at the target of a COPY.

    A partitioned table stands for its partitions, and of an extension's table a dump holds only some rows, so neither is plain.
    """
    rows = main.execute(_FAMILY + _TABLE, {"table": table_of(table.target)})
    return TableFacts(*rows[0]) if rows else TableFacts(is_plain=False, asks_others=False)


def depends_on_foreign_table(main: Session, view: str) -> bool:
    """Tell whether a view (quoted, as a dump names it) reads tables of another server, as far as the catalogue knows."""
    return bool(main.value(_FOREIGN, {"view": view}))


def rows_as_dumped(
    opened: Session, targets: Iterable[CopyBegin], found: dict[str, TableCensus], *, encoding: str = ""
) -> None:
    """Read tables as a dump would word them, by the columns that each target names, and put the census of each into `found`.

    The rows come in `encoding`; without one, in the server's.
    """
    wanted = encoding or opened.value("SHOW server_encoding")
    opened.execute("SELECT set_config('client_encoding', %s, false)", (wanted,))
    for each in targets:
        found[each.target] = table_census(opened.copy_out(each.reading))
