"""The census: equal for equal content whatever its order, and different for every other (P5)."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.archive.manifest import Census, TableCensus
from tasks.core.dump.census import DIFFERENCES_SHOWN, CensusTaker, differences, row_count, table_census
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

ROWS = st.lists(st.binary(max_size=12).map(lambda row: row.replace(b"\n", b"\\n")), max_size=12)


def census_of(*events: DumpEvent) -> Census:
    """Take the census of events."""
    taker = CensusTaker()
    assert list(taker.watch(events)) == list(events)
    return taker.result()


def copied(rows: list[bytes], *, table: str = "public.a (b)", cuts: list[int] | None = None) -> list[DumpEvent]:
    """Copy rows into a table, the stream cut anywhere."""
    data = b"".join(row + b"\n" for row in rows)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    return [
        CopyBegin(table),
        *(CopyData(data[one:two]) for one, two in itertools.pairwise(places)),
        CopyEnd(),
    ]


@settings(max_examples=200, deadline=None)
@given(ROWS, st.lists(st.integers(0, 200), max_size=5), st.randoms(use_true_random=False))
def test_neither_order_nor_the_cuts_of_the_stream_matter(
    rows: list[bytes], cuts: list[int], chance: random.Random
) -> None:
    """A restored table gives its rows in another order, and a pipe its bytes in other pieces."""
    shuffled = list(rows)
    chance.shuffle(shuffled)

    found = census_of(*copied(shuffled, cuts=cuts))

    assert found == census_of(*copied(rows))
    assert found.tables == {"public.a (b)": table_census([row + b"\n" for row in rows])}
    assert row_count(found) == len(rows)


@settings(max_examples=200, deadline=None)
@given(ROWS, ROWS)
def test_other_rows_are_another_census(one: list[bytes], two: list[bytes]) -> None:
    """Rows that occur twice included, to which a sum by XOR would be blind."""
    assert (census_of(*copied(one)) == census_of(*copied(two))) is (sorted(one) == sorted(two))


def test_an_empty_table_is_a_table() -> None:
    """One that lost all its rows is not one that was never there."""
    assert census_of(*copied([])).tables["public.a (b)"].rows == 0
    assert census_of().tables == {}


def test_only_a_dump_that_ended_is_complete() -> None:
    """The end of the stream proves nothing (P6)."""
    taker = CensusTaker()
    for event in copied([b"x"]):
        taker.see(event)
    assert not taker.complete
    taker.see(DumpComplete())
    assert taker.complete


def large_objects(*contents: tuple[int, list[bytes]]) -> list[DumpEvent]:
    """Write large objects, each in pieces."""
    return [
        event
        for oid, pieces in contents
        for event in (LargeObjectBegin(oid), *(LargeObjectData(piece) for piece in pieces))
    ]


def test_large_objects_count_with_number_and_content() -> None:
    """In whatever pieces they come; the last one ends with the dump."""
    expected = census_of(*large_objects((1, [b"ab", b"c"]), (2, [])), DumpComplete()).large_objects

    assert expected.rows == 2
    assert census_of(*large_objects((2, []), (1, [b"abc"]))).large_objects == expected
    for other in [(1, [b"abd"]), (2, [])], [(1, [b"abc"]), (3, [])], [(1, [b"abc"])], [(1, [b""]), (2, [b"abc"])]:
        assert census_of(*large_objects(*other)).large_objects != expected


def schema(*definitions: tuple[Title, bytes]) -> Census:
    """Take the census of definitions."""
    return census_of(*(event for title, sql in definitions for event in (title, Statement(sql, "pre-data"))))


def test_definitions_count_with_their_owner_and_session_settings_do_not() -> None:
    """How the dump is to be read is nothing of the database."""
    table = Title("TABLE", "public", "a", "mailuser")
    expected = schema((table, b"CREATE TABLE public.a (b integer);"))

    assert list(expected.schema_objects) == ["TABLE public.a"]
    assert schema((table, b"SET x = 1;"), (table, b"CREATE TABLE public.a (b integer);")) == expected
    assert schema((table, b"CREATE TABLE public.a (b bigint);")) != expected
    assert schema((Title("TABLE", "public", "a", "other"), b"CREATE TABLE public.a (b integer);")) != expected


def test_a_sequence_counts_with_its_value() -> None:
    """Whether the value was used already is a part of it."""
    found = [
        census_of(Statement(f"SELECT pg_catalog.setval('public.s', {value}, {called});".encode(), "data"))
        for value, called in ((5, "true"), (5, "false"), (6, "true"))
    ]

    assert found[0].sequences == {"public.s": "5, true"}
    assert found[0] != found[1] != found[2]


EMPTY = TableCensus(rows=0, digest="0")


def census(**parts: object) -> Census:
    """Make a census of which only these parts hold something."""
    ordinary: dict[str, object] = {"tables": {}, "sequences": {}, "large_objects": EMPTY, "schema_objects": {}}
    return Census.model_validate(ordinary | parts)


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        (census(), census(), []),
        (
            census(tables={"a (b)": TableCensus(rows=2, digest="x")}),
            census(tables={"a (b)": TableCensus(rows=1, digest="y")}),
            ["table a has 1 rows, expected 2"],
        ),
        (
            census(tables={"a (b)": TableCensus(rows=2, digest="x")}),
            census(tables={"a (b)": TableCensus(rows=2, digest="y")}),
            ["table a has other content in its 2 rows"],
        ),
        (census(tables={"a (b)": EMPTY}), census(), ["table a is missing (0 rows)"]),
        (census(), census(tables={"a (b)": EMPTY}), ["table a was not there before"]),
        (
            census(sequences={"s": "5, true"}),
            census(sequences={"s": "6, true", "t": "1, false"}),
            ["sequence s is 6, true, expected 5, true", "sequence t is 1, false, expected none"],
        ),
        (census(sequences={"s": "5, true"}), census(), ["sequence s is missing, expected 5, true"]),
        (
            census(large_objects=TableCensus(rows=1, digest="x")),
            census(),
            ["large objects has 0 rows, expected 1"],
        ),
        (
            census(schema_objects={"TABLE a": "x", "INDEX b": "x"}),
            census(schema_objects={"TABLE a": "y", "VIEW c": "x"}),
            ["INDEX b is missing", "TABLE a is defined differently", "VIEW c was not there before"],
        ),
    ],
)
def test_every_difference_in_words(expected: Census, found: Census, words: list[str]) -> None:
    """The report of a failed verification says what is wrong."""
    assert differences(expected, found) == words


def test_definitions_are_not_compared_between_majors_and_the_rest_is() -> None:
    """Another pg_dump words the same definition differently."""
    expected = census(schema_objects={"TABLE a": "x"}, sequences={"s": "1, true"})

    assert (
        differences(expected, census(schema_objects={"TABLE a": "y"}, sequences={"s": "1, true"}), compare_schema=False)
        == []
    )
    assert differences(expected, census(), compare_schema=False) == ["sequence s is missing, expected 1, true"]


def test_many_differences_are_cut_and_counted() -> None:
    """A wholly different database does not fill the page."""
    words = differences(
        census(sequences={f"s{number:03}": "1, true" for number in range(DIFFERENCES_SHOWN + 7)}), census()
    )

    assert len(words) == DIFFERENCES_SHOWN + 1
    assert words[-1] == "... and 7 more differences"
