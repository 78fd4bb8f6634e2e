"""What COPY's text format spells out is decoded to exactly what was meant, or left to COPY."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dump.wide_rows import WIDE_ROW_BYTES, insert_statement, is_wide, values_of_rows

ESCAPES = {b"\b": b"\\b", b"\f": b"\\f", b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b"\v": b"\\v", b"\\": b"\\\\"}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))).map(str.encode)


def spelled(value: bytes | None, *, binary: bool) -> bytes:
    """Spell a value as PostgreSQL's CopyAttributeOutText does."""
    if value is None:
        return b"\\N"
    if binary:
        return b"\\\\x" + value.hex().encode()
    return b"".join(ESCAPES.get(bytes([byte]), bytes([byte])) for byte in value)


@given(st.lists(st.tuples(TEXT | st.none(), st.binary() | st.none(), TEXT)))
def test_every_row_that_postgresql_spells_is_decoded_to_its_values(rows: list[tuple[bytes | None, ...]]) -> None:
    text = b"".join(
        b"\t".join(spelled(value, binary=place == 1) for place, value in enumerate(row)) + b"\n" for row in rows
    )
    assert list(values_of_rows(text, {1})) == [list(row) for row in rows]


@pytest.mark.parametrize(
    "row",
    [
        b"1\tabc\\q\n",
        b"1\t\\101\n",
        b"1\\\t\\\\x00\n",
        b"1\tescaped\\\\000\n",
        b"1\t\\\\x0\n",
        b"1\t\\\\xzz\n",
        b"1\t\n",
    ],
)
def test_a_row_spelled_otherwise_is_left_to_copy(row: bytes) -> None:
    assert list(values_of_rows(row, {1})) == [row]


def test_rows_are_wide_by_their_average() -> None:
    wide, narrow = b"a" * WIDE_ROW_BYTES + b"\n", b"a\n"
    assert is_wide(wide)
    assert is_wide(2 * wide + narrow) is False
    assert is_wide(2 * (b"a" + wide) + b"b" * WIDE_ROW_BYTES + narrow)
    assert not is_wide(100 * narrow)


@pytest.mark.parametrize(
    ("target", "columns"),
    [
        ("public.t (a)", 1),
        ('public.t (a, b, "C d")', 3),
        ('"odd (schema"."t (x, y)" ("a, (b", "c""d)", e)', 3),
        ('"ümläut" ("ß", "日本")', 2),
    ],
)
def test_a_statement_has_a_place_for_each_column(target: str, columns: int) -> None:
    statement = insert_statement(target)
    assert statement is not None
    assert statement.startswith(f"INSERT INTO {target} ")
    assert statement.endswith(f"({', '.join(f'${n}' for n in range(1, columns + 1))})")


def test_a_target_without_columns_takes_none() -> None:
    assert insert_statement("public.t ") is None
