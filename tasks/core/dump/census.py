"""The census: what "the same data" means, read off the stream of a dump.

A dump is written in one snapshot, so a census taken from its stream is of exactly what the archive holds, costs no second look at the
database, and works on archives of others too. Verification dumps the restored database through the same code and compares.

The digest of a table is the sum, modulo 2**256, of the SHA-256 of each row as COPY writes it: independent of the rows' order, and
unlike XOR not blind to rows that occur twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tasks.core.archive.manifest import Census, TableCensus
from tasks.core.byte_text import bytes_of, shown, text_of
from tasks.core.dump.custom import Head
from tasks.core.dump.events import (
    CopyBegin,
    CopyData,
    CopyEnd,
    DumpComplete,
    DumpEvent,
    LargeObjectBegin,
    LargeObjectData,
    Statement,
    Title,
)
from tasks.core.dump.insert_rows import inserted_rows

_MODULUS = 1 << 256
_SETVAL = re.compile(rb"SELECT pg_catalog\.setval\('(?P<name>(?:[^']|'')+)', (?P<value>-?\d+, (?:true|false))\);")
# Sent along with every dump but no object of the database: how to read the dump, and what the next CREATE TABLE defaults to.
_TABLE = re.compile(r'(?:"(?:[^"]|"")*"|[^\s"(])+')
_COLUMN = re.compile(r'"(?:[^"]|"")*"|[^\s",()]+')
_SESSION = re.compile(rb"SET \w+ = |SELECT pg_catalog\.set_config\(")
_INHERITS = re.compile(
    rb"(?P<head>CREATE (?:UNLOGGED )?TABLE [^\n]*\()\n(?P<columns>.*)\n(?P<rest>\)\nINHERITS \(.*)", re.DOTALL
)
DIFFERENCES_SHOWN = 50


@dataclass
class CensusTaker:
    """Count and digest the events of one dump as they pass by; `complete` tells whether the dump ended as it should."""

    complete: bool = False
    _tables: dict[str, TableCensus] = field(default_factory=dict)
    _sequences: dict[str, str] = field(default_factory=dict)
    _objects: dict[str, list[str]] = field(default_factory=dict)
    _orderless: dict[str, list[str]] = field(default_factory=dict)
    _inheriting: set[str] = field(default_factory=set)
    _title: Title = field(default_factory=lambda: Title("", "", "", ""))
    _target: str = ""
    _rows: int = 0
    _sum: int = 0
    _partial_row: hashlib._Hash | None = None
    _large_objects: int = 0
    _large_object_sum: int = 0
    _large_object: hashlib._Hash | None = None

    def watch(self, events: Iterable[Head | DumpEvent]) -> Iterator[Head | DumpEvent]:
        """Pass the events on, having counted them."""
        for event in events:
            self.see(event)
            yield event

    def see(self, event: Head | DumpEvent) -> None:
        """Count one event."""
        match event:
            case CopyData(data):
                self._see_rows(data)
            case CopyBegin(target):
                self._target, self._rows, self._sum = target, 0, 0
            case CopyEnd():
                self._end_partial_row()
                self._tables[self._target] = _sum_of(self._tables.get(self._target), self._rows, self._sum)
            case Title():
                self._end_large_object()
                self._title = event
            case Statement(sql, _):
                self._see_statement(sql)
            case LargeObjectBegin(oid):
                self._end_large_object()
                self._large_object = hashlib.sha256(str(oid).encode() + b"\n")
            case LargeObjectData(data):
                if self._large_object is not None:
                    self._large_object.update(data)
            case DumpComplete():
                self._end_large_object()
                self.complete = True
            case Head():
                pass

    def result(self) -> Census:
        """Give the census of all that was seen."""
        self._end_large_object()
        return Census(
            tables=dict(sorted(self._tables.items())),
            sequences=dict(sorted(self._sequences.items())),
            large_objects=TableCensus(rows=self._large_objects, digest=f"{self._large_object_sum:064x}"),
            schema_objects={name: _digest_of_all(definitions) for name, definitions in sorted(self._objects.items())},
            inheriting={name: _digest_of_all(self._orderless[name]) for name in sorted(self._inheriting)},
        )

    def _see_rows(self, data: bytes) -> None:
        rows = data.split(b"\n")
        rest = rows.pop()
        if self._partial_row is not None and rows:
            self._partial_row.update(rows[0])
            self._end_partial_row()
            del rows[0]
        total = self._sum
        for row in rows:
            total += int.from_bytes(hashlib.sha256(row).digest(), "little")
        self._sum = total % _MODULUS
        self._rows += len(rows)
        if rest:
            if self._partial_row is None:
                self._partial_row = hashlib.sha256()
            self._partial_row.update(rest)

    def _end_partial_row(self) -> None:
        if self._partial_row is not None:
            self._sum = (self._sum + int.from_bytes(self._partial_row.digest(), "little")) % _MODULUS
            self._rows += 1
            self._partial_row = None

    def _end_large_object(self) -> None:
        if self._large_object is not None:
            self._large_objects += 1
            self._large_object_sum += int.from_bytes(self._large_object.digest(), "little")
            self._large_object_sum %= _MODULUS
            self._large_object = None

    def _see_statement(self, sql: bytes) -> None:
        setval = _SETVAL.fullmatch(sql)
        if setval:
            self._sequences[text_of(setval["name"])] = text_of(setval["value"])
        elif inserted := inserted_rows(sql):
            total = sum(int.from_bytes(hashlib.sha256(row).digest(), "little") for row in inserted.rows)
            before = self._tables.get(inserted.target)
            self._tables[inserted.target] = _sum_of(before, len(inserted.rows), total % _MODULUS)
        elif not _SESSION.match(sql):
            name = str(self._title)
            self._objects.setdefault(name, []).append(self._digest(sql.strip()))
            if _INHERITS.match(sql):
                self._inheriting.add(name)
            self._orderless.setdefault(name, []).append(self._digest(_without_order(sql)))

    def _digest(self, definition: bytes) -> str:
        return hashlib.sha256(bytes_of(self._title.owner) + b"\n" + definition).hexdigest()


def _without_order(sql: bytes) -> bytes:
    """Sort the columns of a table that inherits: once restored they stand in its parent's order, by PostgreSQL's own doing."""
    found = _INHERITS.match(sql)
    if found is None:
        return sql.strip()
    lines = sorted(line.strip().rstrip(b",") for line in found["columns"].splitlines())
    return b"\n".join([found["head"].strip(), *lines, found["rest"].strip()])


def _digest_of_all(definitions: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(sorted(definitions)).encode()).hexdigest()


def _sum_of(before: TableCensus | None, rows: int, total: int) -> TableCensus:
    """Add rows to what a table held before: partitions may come one after another, each as rows of their root."""
    if before is None:
        return TableCensus(rows=rows, digest=f"{total:064x}")
    return TableCensus(rows=before.rows + rows, digest=f"{(int(before.digest, 16) + total) % _MODULUS:064x}")


def table_census(rows: Iterable[bytes | memoryview]) -> TableCensus:
    """Count and digest the rows of one table, each as COPY writes it, with its newline."""
    count, total = 0, 0
    for row in rows:
        count += 1
        total += int.from_bytes(hashlib.sha256(row[:-1]).digest(), "little")
    return TableCensus(rows=count, digest=f"{total % _MODULUS:064x}")


def table_of(target: str) -> str:
    """Give the quoted table of a COPY's target.

    >>> table_of('public."Odd (table)" (id, "a (b")')
    'public."Odd (table)"'
    """
    found = _TABLE.match(target)
    return found[0] if found else target


def reordered(expected: Census, found: Census) -> list[str]:
    """List the targets of COPY whose table has the very columns that are expected, in another order.

    So PostgreSQL restores tables that inherit: their columns come in their parent's order. The rows are equal where they
    are so when read in the expected order.
    """
    others = {(table_of(each), _columns_of(each)) for each in found.tables}
    return [
        each for each in expected.tables if each not in found.tables and (table_of(each), _columns_of(each)) in others
    ]


def in_the_expected_order(found: Census, read: Mapping[str, TableCensus]) -> Census:
    """Put the rows as `read` in the expected order of the columns in place of those that stand under another."""
    tables = {table_of(each) for each in read}
    kept = {each: rows for each, rows in found.tables.items() if table_of(each) not in tables}
    return found.model_copy(update={"tables": dict(sorted({**kept, **read}.items()))})


def _columns_of(target: str) -> tuple[str, ...]:
    """Give the columns that a COPY's target names, sorted.

    >>> _columns_of('public."Odd (table)" (id, "b, c", "a (b")')
    ('"a (b"', '"b, c"', 'id')
    """
    return tuple(sorted(_COLUMN.findall(target[len(table_of(target)) :])))


def differences(expected: Census, found: Census, *, compare_schema: bool = True) -> list[str]:
    """List, in words, everything in which two censuses differ; nothing when they hold the same content.

    `compare_schema` is false only between different PostgreSQL majors, whose pg_dump words the same definition differently.
    """
    words: list[str] = []
    for table in sorted(expected.tables.keys() | found.tables.keys()):
        words += _table_difference(f"table {table.split(' (')[0]}", expected.tables.get(table), found.tables.get(table))
    for name in sorted(expected.sequences.keys() | found.sequences.keys()):
        before, after = expected.sequences.get(name), found.sequences.get(name)
        if before != after:
            words.append(f"sequence {name} is {after or 'missing'}, expected {before or 'none'}")
    words += _table_difference("large objects", expected.large_objects, found.large_objects)
    if compare_schema:
        for name in sorted(expected.schema_objects.keys() | found.schema_objects.keys()):
            before, after = expected.schema_objects.get(name), found.schema_objects.get(name)
            same = expected.inheriting.get(name)
            if before != after and (same is None or same != found.inheriting.get(name)):
                what = (
                    "is missing"
                    if after is None
                    else "was not there before"
                    if before is None
                    else "is defined differently"
                )
                words.append(f"{name} {what}")
    words = [shown(each) for each in words]
    if len(words) > DIFFERENCES_SHOWN:
        words = [*words[:DIFFERENCES_SHOWN], f"... and {len(words) - DIFFERENCES_SHOWN} more differences"]
    return words


def _table_difference(name: str, expected: TableCensus | None, found: TableCensus | None) -> list[str]:
    if expected == found:
        return []
    if expected is None:
        return [f"{name} was not there before"]
    if found is None:
        return [f"{name} is missing ({expected.rows} rows)"]
    if expected.rows != found.rows:
        return [f"{name} has {found.rows} rows, expected {expected.rows}"]
    return [f"{name} has other content in its {found.rows} rows"]


def row_count(census: Census) -> int:
    """Count the rows of all tables."""
    return sum(table.rows for table in census.tables.values())
