"""Rows that a dump holds as INSERT statements (`--inserts`, `--column-inserts`, `--rows-per-insert`)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.core.byte_text import text_of

_NAME = rb'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)'
_HEAD = re.compile(
    rb"INSERT\s+INTO\s+(?P<target>" + _NAME + rb"(?:\." + _NAME + rb")?(?:\s+\(" + _NAME + rb"(?:,\s*" + _NAME + rb")*\))?)"
    rb"(?:\s+OVERRIDING\s+SYSTEM\s+VALUE)?\s+VALUES\s+"
)  # fmt: skip
# What pg_dump writes as a value, and nothing that could run anything. Where standard_conforming_strings is off it
# doubles each backslash, so that a quote still ends a string.
_VALUE = rb"(?:[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|[bBxX]'[0-9a-fA-F]*'|[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|NULL|DEFAULT|true|false)"
_ROW = re.compile(rb"\(" + _VALUE + rb"(?:,\s*" + _VALUE + rb")*\)", re.DOTALL)
_DEFAULTS = re.compile(rb"INSERT\s+INTO\s+(?P<target>" + _NAME + rb"(?:\." + _NAME + rb")?)\s+DEFAULT\s+VALUES\s*;")
_END = re.compile(rb"\s*(?:ON\s+CONFLICT\s+DO\s+NOTHING\s*)?;")
_NEXT = re.compile(rb",\s*")


@dataclass(frozen=True, slots=True)
class InsertedRows:
    """The rows of one INSERT: its target (`public.t` or `public.t (a, b)`), and each row as it is written."""

    target: str
    rows: tuple[bytes, ...]


def inserted_rows(sql: bytes) -> InsertedRows | None:
    """Read an INSERT of plain values, as pg_dump writes it; None for anything else.

    >>> inserted_rows(b"INSERT INTO public.t VALUES (1, 'it''s'), (NULL, '');")
    InsertedRows(target='public.t', rows=(b"(1, 'it''s')", b"(NULL, '')"))
    >>> inserted_rows(b"INSERT INTO public.t VALUES (pg_sleep(1));") is None
    True
    """
    if not sql.startswith(b"INSERT"):
        return None
    if found := _DEFAULTS.fullmatch(sql):
        return InsertedRows(text_of(found["target"]), (b"DEFAULT VALUES",))
    head = _HEAD.match(sql)
    if head is None:
        return None
    rows = []
    at = head.end()
    while row := _ROW.match(sql, at):
        rows.append(row[0])
        at = row.end()
        following = _NEXT.match(sql, at)
        if following is None:
            break
        at = following.end()
    if not rows or _END.fullmatch(sql, at) is None:
        return None
    return InsertedRows(text_of(head["target"]), tuple(rows))
