"""P10: a number of outside may have any number of digits, and stand in any script; Python would take some and stumble over others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.dump.custom import read_custom_dump
from tasks.core.dump.events import DumpComplete, Statement
from tasks.core.dump.foreign_dump import dumped_by_major
from tasks.core.dump.sql import read_sql_dump
from tasks.core.dump.statements import is_allowed
from tasks.core.errors import ArchiveDamaged, BackupError
from tasks.core.stack.connection_string import parse_connection_string
from tasks.core.stack.identify import application_port_of, pgdata_of

DUMP = Path(__file__).parent / "dumps" / "nasty_17.dump"
LONG = "7" * 6_000
END = "\n--\n-- PostgreSQL database dump complete\n--\n\n"


@pytest.mark.parametrize("number", [b"7x", b"0x7", b"-77", b"7\xd9\xa3", b"0"])
def test_a_large_object_of_a_custom_dump_is_named_by_a_plain_number(number: bytes) -> None:
    content = DUMP.read_bytes()
    made = [
        each.sql for each in read_custom_dump([content]) if isinstance(each, Statement) and b"lo_create" in each.sql
    ]
    known = made[0].split(b"'")[1]
    at = content.index(known, content.index(b"BLOB METADATA"))

    with pytest.raises(ArchiveDamaged, match="no number"):
        list(read_custom_dump([content[:at] + number.ljust(len(known), b"x") + content[at + len(known) :]]))


def test_a_large_object_of_an_sql_dump_too() -> None:
    """It is none that pg_dump opens, and so a statement that no restore runs."""
    (found,) = [
        each
        for each in read_sql_dump([f"SELECT pg_catalog.lo_open('{LONG}', 131072);\n{END}".encode()])
        if not isinstance(each, DumpComplete)
    ]

    assert isinstance(found, Statement)
    assert not is_allowed(found.sql)


@pytest.mark.parametrize("port", [LONG, "٣٣٣", "123456"])
def test_a_port_of_a_connection_string(port: str) -> None:
    for text in (f"Host=db;Port={port}", f"Host=db:{port}"):
        with pytest.raises(BackupError, match="port") as caught:
            parse_connection_string(text, source="app")
        assert len(caught.value.message) < 200


def test_what_is_no_number_of_the_kind_is_passed_over() -> None:
    assert pgdata_of({}, f"postgres:{LONG}", []) == "/var/lib/postgresql/data"
    assert application_port_of({"ASPNETCORE_URLS": f"http://+:{LONG}"}, [5000]) == 5000
    assert application_port_of({"ASPNETCORE_HTTP_PORTS": f"{LONG};٣"}, [5000]) == 5000
    assert dumped_by_major(f"-- Dumped by pg_dump version {LONG}\n".encode()) is None
