"""The words of an SQL statement as PostgreSQL's lexer sees them: comments are none, quoted names and bodies are one each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tasks.core.byte_text import text_of

TokenKind = Literal["word", "name", "string", "number", "mark"]

_TOKEN = re.compile(
    rb"""
      (?P<space>\s+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<string>[eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'|(?:[bBxXnN]|[uU]&)?'[^']*(?:''[^']*)*')
    | (?P<body>\$(?P<tag>(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?)\$.*?\$(?P=tag)\$)
    | (?P<name>(?:[uU]&)?"[^"]*(?:""[^"]*)*")
    | (?P<word>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)
    | (?P<number>\d[\d.eE]*)
    | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(rb"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Token:
    """One word of a statement; `text` is a word in capitals, a name without its quotes, else as it stands."""

    kind: TokenKind
    text: str
    start: int


def tokens(statement: bytes) -> Iterator[Token]:
    """Yield the tokens of a statement, each when it is asked for: most are judged by their first few.

    >>> [each.text for each in tokens(b'ALTER/* x /* y */ */role "a ""b"')]
    ['ALTER', 'ROLE', 'a "b']
    """
    at = 0
    while at < len(statement):
        found = _TOKEN.match(statement, at)
        assert found is not None  # `mark` takes any byte
        start, at = at, found.end()
        match found.lastgroup:
            case "comment":
                at = _after_comment(statement, at)
            case "word":
                yield Token("word", text_of(found[0]).upper(), start)
            case "name":
                yield Token("name", text_of(found[0]).partition('"')[2][:-1].replace('""', '"'), start)
            case "string" | "body" | "tag":
                yield Token("string", text_of(found[0]), start)
            case "number":
                yield Token("number", text_of(found[0]), start)
            case "mark":
                yield Token("mark", text_of(found[0]), start)


def _after_comment(statement: bytes, at: int) -> int:
    """Give where a comment ends whose beginning was read; they nest. One without an end takes all."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(statement, at)
        if edge is None:
            return len(statement)
        depth += 1 if edge[0] == b"/*" else -1
        at = edge.end()
    return at
