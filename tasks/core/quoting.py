"""How names and texts are written in SQL."""

from __future__ import annotations


def quoted(name: str) -> str:
    """Quote an identifier.

    >>> print(quoted('odd "name'))
    "odd ""name"
    """
    return '"' + name.replace('"', '""') + '"'


def quoted_literal(value: str) -> str:
    """Quote a string literal, so that it is read alike whatever standard_conforming_strings says.

    >>> print(quoted_literal("it's"))
    'it''s'
    """
    escaped = value.replace("'", "''")
    return f" E'{escaped.replace(chr(92), chr(92) * 2)}'" if "\\" in value else f"'{escaped}'"
