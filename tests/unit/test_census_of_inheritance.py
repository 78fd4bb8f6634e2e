"""Tables that inherit: PostgreSQL gives their columns another order once a dump of them was loaded."""

from __future__ import annotations

from tasks.core.archive.manifest import Census
from tasks.core.dump.census import CensusTaker, differences
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
