"""Connection strings as Npgsql reads them: ADO.NET's rules for quoting, PostgreSQL's names for the keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.core.errors import Refused

# Npgsql's names and its synonyms, compared without case and without spaces.
_NAMES = {
    "host": "host",
    "server": "host",
    "port": "port",
    "database": "database",
    "db": "database",
    "username": "user",
    "userid": "user",
    "uid": "user",
    "password": "password",
    "psw": "password",
    "pwd": "password",
}


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """What an application's connection string says; "" and None where it says nothing."""

    host: str = ""
    port: int | None = None
    database: str = ""
    user: str = ""
    password: str = field(default="", repr=False)


def parse_connection_string(text: str, *, source: str) -> ConnectionString:
    """Read a connection string; raise Refused, without showing it, where it breaks the rules.

    >>> parse_connection_string("Host=db;User Id=a;Pwd='x;''y'", source="app").user
    'a'
    """
    said: dict[str, str] = {}
    for key, value in key_values(text, source=source).items():
        name = _NAMES.get(key.replace(" ", "").casefold())
        if name:
            said[name] = value
    host, port = _first_host(said.get("host", ""), said.get("port", ""), source=source)
    return ConnectionString(host, port, said.get("database", ""), said.get("user", ""), said.get("password", ""))


def key_values(text: str, *, source: str) -> Mapping[str, str]:
    """Split a connection string into its keys and values; the last of two equal keys wins, and an empty value unsets.

    Values may be quoted with ' or ", where a doubled quote means one; unquoted ones end at the semicolon and keep `=`.
    In a key `==` means `=`.
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        if text[position] in "; \t\r\n":
            position += 1
            continue
        key, position = _key(text, position, source)
        value, position = _value(text, position, source)
        found.pop(key, None)
        if value:
            found[key] = value
    return found


def _key(text: str, position: int, source: str) -> tuple[str, int]:
    key = ""
    while position < len(text):
        if text.startswith("==", position):
            key, position = key + "=", position + 2
        elif text[position] == "=":
            return key.strip().casefold(), position + 1
        elif text[position] == ";":
            break
        else:
            key, position = key + text[position], position + 1
    # The piece without `=` may be the tail of a password with a bare semicolon: it is not shown.
    raise _unreadable(source, "a piece of it has no '='")


def _value(text: str, position: int, source: str) -> tuple[str, int]:
    while position < len(text) and text[position].isspace():
        position += 1
    quote = text[position : position + 1]
    if quote not in ("'", '"') or not quote:
        end = text.find(";", position)
        end = len(text) if end < 0 else end
        return text[position:end].strip(), end + 1
    value, position = "", position + 1
    while position < len(text):
        if text.startswith(quote * 2, position):
            value, position = value + quote, position + 2
        elif text[position] == quote:
            return value, _after_quoted(text, position + 1, source)
        else:
            value, position = value + text[position], position + 1
    raise _unreadable(source, f"a value begins with {quote} and does not end with it")


def _after_quoted(text: str, position: int, source: str) -> int:
    end = text.find(";", position)
    end = len(text) if end < 0 else end
    if text[position:end].strip():
        raise _unreadable(source, "something other than ';' follows a quoted value")
    return end + 1


def _first_host(host: str, port: str, *, source: str) -> tuple[str, int | None]:
    """Take the first of several hosts, and the port that may stand behind it."""
    first = host.split(",")[0].strip()
    name, colon, own_port = first.rpartition(":")
    if colon and own_port.isdecimal() and ":" not in name:
        first, port = name, own_port
    if port and not re.fullmatch(r"[0-9]{1,5}", port):
        raise _unreadable(source, f"its port is {port[:20]!r}")
    return first, int(port) if port else None


def _unreadable(source: str, reason: str) -> Refused:
    return Refused(
        f"the connection string of {source} cannot be understood: {reason}",
        hint="a value with a semicolon or a quote must stand in quotes: Password='a;b'",
    )
