"""Connection strings are read as the application reads them, or refused without being shown."""

from __future__ import annotations

import pytest

from tasks.core.errors import Refused
from tasks.core.stack.connection_string import ConnectionString, key_values, parse_connection_string


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Host=postgres;Database=MailArchiver;Username=mailuser;Password=masterkey;",
            ConnectionString("postgres", None, "MailArchiver", "mailuser", "masterkey"),
        ),
        ("SERVER=db; Port = 5433 ;DB=x;UID=u;PWD=p", ConnectionString("db", 5433, "x", "u", "p")),
        ("server=db;user id=u;userid=w", ConnectionString("db", user="w")),
        ("Host=db;User Name=u;Psw=p", ConnectionString("db", user="u", password="p")),
        ("Host=db;Password='a;b''c\"=d'", ConnectionString("db", password="a;b'c\"=d")),
        ('Host=db;Password="a;b""c\'"; Database=x', ConnectionString("db", None, "x", "", "a;b\"c'")),
        ("Host=db;Password=a=b==c", ConnectionString("db", password="a=b==c")),
        ("Host=db;Password=it's", ConnectionString("db", password="it's")),
        ("Host=db;Password= padded ;", ConnectionString("db", password="padded")),
        ("Host=db;Password=' padded '", ConnectionString("db", password=" padded ")),
        ("Host=db;Username=Jörg Müller;Database=$mail €", ConnectionString("db", None, "$mail €", "Jörg Müller")),
        ("Host=db:6543;Port=1", ConnectionString("db", 6543)),
        ("Host=one:1,two:2", ConnectionString("one", 1)),
        ("Host=::1;Port=5432", ConnectionString("::1", 5432)),
        ("Host=old;Host=new", ConnectionString("new")),
        ("Host=db;Password=x;Password=", ConnectionString("db")),
        ("Host=/var/run/postgresql", ConnectionString("/var/run/postgresql")),
        ("Host=db;Include Error Detail=true;Timeout=30", ConnectionString("db")),
        (";; Host=db ;;\n", ConnectionString("db")),
        ("", ConnectionString()),
    ],
)
def test_reads_what_npgsql_reads(text: str, expected: ConnectionString) -> None:
    """Quotes, synonyms, case, `=` and `;` in values mean what they mean to the application."""

    assert expected == parse_connection_string(text, source="app")


@pytest.mark.parametrize(
    "text",
    ["Host=db;Password='hunter2", 'Host=db;Password="hunter2', "Host=db;Password='a'hunter2", "Host=db;hunter2"],
)
def test_refuses_what_is_malformed_without_showing_it(text: str) -> None:
    """A half-understood connection string is refused, and no part of a password is in the message."""
    with pytest.raises(Refused) as caught:
        parse_connection_string(text, source="service app")

    assert "service app" in caught.value.message
    assert "hunter2" not in str(caught.value)


def test_refuses_a_port_that_is_no_number() -> None:
    """The value seen is said."""
    with pytest.raises(Refused, match="'many'"):
        parse_connection_string("Host=db;Port=many", source="app")
    with pytest.raises(Refused, match="'²'"):
        parse_connection_string("Host=db;Port=²", source="app")


def test_a_doubled_equals_sign_belongs_to_the_key() -> None:
    """ADO.NET's one escape for keys."""

    expected = {"a=b": "c"}

    assert expected == key_values("A==b=c", source="app")


def test_the_password_is_not_in_the_representation() -> None:
    """A connection string in a log or a traceback gives nothing away."""

    assert "hunter2" not in repr(parse_connection_string("Password=hunter2", source="app"))
