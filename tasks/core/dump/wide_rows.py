"""Rows that COPY is slow for: those with large binary values, which its text format spells out in hexadecimal digits.

PostgreSQL's COPY reads such a row three times byte by byte (for the line, the fields, the digits); a statement that
takes the value as it is costs half as much. (Source of the format: PostgreSQL's documentation of COPY, "Text Format";
what a dump uses of it: CopyAttributeOutText in src/backend/commands/copyto.c.)
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Iterator

Values = list[bytes | None]

# Above it a statement for each row costs less than COPY; a batch's rows are taken by their average.
WIDE_ROW_BYTES = 32 << 10
# Above it a row is streamed by COPY, so that memory stays bounded.
WIDEST_ROW_BYTES = 8 << 20

_TARGET = re.compile(r'(?P<table>(?:"(?:[^"]|"")*"|[^"\s(])+)\s*\((?P<columns>.+)\)', re.DOTALL)
_COLUMN = re.compile(r'"(?:[^"]|"")*"|[^",\s]+')
_ESCAPE = re.compile(rb"\\([bfnrtv\\])")
_UNUSUAL = re.compile(rb"(?:^|[^\\])(?:\\\\)*\\(?![bfnrtv\\])")
_ESCAPED = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\\": b"\\"}


def insert_statement(target: str) -> str | None:
    """Word the statement that inserts one row into a COPY's target; None where the target names no columns."""
    found = _TARGET.fullmatch(target.strip())
    if found is None:
        return None
    count = len(_COLUMN.findall(found["columns"]))
    places = ", ".join(f"${number}" for number in range(1, count + 1))
    # COPY takes a value for a column that is GENERATED ALWAYS AS IDENTITY, and so must this.
    return f"INSERT INTO {target} OVERRIDING SYSTEM VALUE VALUES ({places})"


def is_wide(rows: bytes) -> bool:
    """Tell whether complete rows are so long, on the average, that a statement for each is quicker."""
    at, most = 0, len(rows) // WIDE_ROW_BYTES
    while most >= 0 and (newline := rows.find(b"\n", at)) >= 0:
        at, most = newline + 1, most - 1
    return most >= 0


def values_of_rows(rows: bytes, binary: Collection[int]) -> Iterator[Values | bytes]:
    """Decode complete rows of COPY's text format: binary values in the given columns, text as it is meant in all others.

    A row that is spelled in another way than a dump spells it is given as it is, with its newline: COPY is to read it. (Fields are found
    by leaping: `bytes.split` looks at each byte.)
    """
    begin = 0
    while (end := rows.find(b"\n", begin)) >= 0:
        values = _values_of(rows, begin, end, binary)
        yield rows[begin : end + 1] if values is None else values
        begin = end + 1


def _values_of(rows: bytes, begin: int, end: int, binary: Collection[int]) -> Values | None:
    values: Values = []
    number = 0
    while begin <= end:
        tab = rows.find(b"\t", begin, end)
        stop = end if tab < 0 else tab
        if number in binary and rows.startswith(b"\\\\x", begin, stop):
            try:
                values.append(binascii.unhexlify(memoryview(rows)[begin + 3 : stop]))
            except binascii.Error:
                return None
        else:
            field = rows[begin:stop]
            if field == b"\\N":
                values.append(None)
            elif number in binary:
                return None
            elif b"\\" not in field:
                values.append(field)
            elif _UNUSUAL.search(field):
                return None
            else:
                values.append(_ESCAPE.sub(_unescape, field))
        begin = stop + 1
        number += 1
    return values


def _unescape(found: re.Match[bytes]) -> bytes:
    return _ESCAPED[found[1]]
