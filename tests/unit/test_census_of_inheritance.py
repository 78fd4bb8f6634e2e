"""Tables that inherit: PostgreSQL gives their columns another order once a dump of them was loaded."""

from __future__ import annotations

from tasks.core.archive.manifest import Census, TableCensus
from tasks.core.dump.census import CensusTaker, differences, in_the_expected_order, reordered
from tasks.core.dump.left_out import LeftOut
from tasks.core.dump.sql import read_sql_dump

DUMP = """--
-- Name: child; Type: TABLE; Schema: public; Owner: mailuser
--

CREATE TABLE public.child (
    {columns}
)
INHERITS (public.parent);


ALTER TABLE public.child OWNER TO mailuser;
{more}
--
-- PostgreSQL database dump complete
--

"""


def census(*columns: str, more: str = "", inherits: bool = True) -> Census:
    text = DUMP.format(columns=",\n    ".join(columns), more=more)
    text = text if inherits else text.replace("\nINHERITS (public.parent)", "")
    taker = CensusTaker()
    for event in read_sql_dump([text.encode()]):
        taker.see(event)
    return taker.result()


def test_the_order_of_an_inheriting_tables_columns_is_its_parents() -> None:
    before = census("b integer DEFAULT 1", "a integer NOT NULL", "CONSTRAINT few CHECK ((a < 3))")

    assert (
        differences(before, census("a integer NOT NULL", "b integer DEFAULT 1", "CONSTRAINT few CHECK ((a < 3))")) == []
    )
    for other in (
        census("a integer", "b integer DEFAULT 1", "CONSTRAINT few CHECK ((a < 3))"),
        census("a integer NOT NULL", "b integer DEFAULT 1"),
        census(
            "a integer NOT NULL",
            "b integer DEFAULT 1",
            "CONSTRAINT few CHECK ((a < 3))",
            more="ALTER TABLE public.child ENABLE x;",
        ),
    ):
        assert differences(before, other) == ["TABLE public.child is defined differently"]


def test_any_other_tables_columns_keep_their_order() -> None:
    before = census("b integer", "a integer", inherits=False)

    assert before.inheriting == {}
    assert differences(before, census("a integer", "b integer", inherits=False)) == [
        "TABLE public.child is defined differently"
    ]


def test_a_census_of_before_is_compared_exactly() -> None:
    before = census("b integer", "a integer").model_copy(update={"inheriting": {}})

    assert differences(before, census("b integer", "a integer")) == []
    assert differences(before, census("a integer", "b integer")) == ["TABLE public.child is defined differently"]


def test_it_is_still_known_where_something_may_be_left_out() -> None:
    before, after = census("b integer", "a integer"), census("a integer", "b integer")
    nothing = LeftOut(())

    assert differences(nothing.without(before), nothing.without(after)) == []
    assert nothing.without(before) == before


def test_rows_may_stand_under_another_order_of_the_same_columns() -> None:
    rows = TableCensus(rows=1, digest="0" * 64)
    before = census("a integer").model_copy(
        update={"tables": {'public.child (b, "c, (d", a)': rows, "public.plain (a)": rows, "public.other (a)": rows}}
    )
    found = census("a integer").model_copy(
        update={"tables": {'public.child (a, b, "c, (d")': rows, "public.plain (a)": rows, "public.other (a, b)": rows}}
    )

    assert reordered(before, found) == ['public.child (b, "c, (d", a)']
    read = in_the_expected_order(found, {'public.child (b, "c, (d", a)': rows})
    assert differences(before, read) == [
        "table public.other is missing (1 rows)",
        "table public.other was not there before",
    ]
