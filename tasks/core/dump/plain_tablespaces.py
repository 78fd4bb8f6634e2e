"""A plain dump for a server that lacks some of its tablespaces, when psql loads it: the default one takes their place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from tasks.core.byte_text import text_of

# Whole lines, as pg_dump writes them; what looks like one among the rows of a COPY is a row.
_LINE = re.compile(
    rb"^(?:(?P<rows>COPY [^\n]* FROM stdin;)|(?P<end>\\\.)|SET default_tablespace = (?P<name>[^\n]+);)$", re.M
)
_LONGEST_LINE_BYTES = 1 << 20
_IN_DEFAULT = b"SET default_tablespace = '';"


def in_known_tablespaces(chunks: Iterable[bytes], known: Collection[str]) -> Iterator[bytes]:
    r"""Pass a plain dump on, but let no object go into a tablespace that is not `known`.

    >>> b"".join(in_known_tablespaces([b"SET default_tablespace = gone;\nCOPY a FROM st", b"din;\nSET default_tablespace = gone;\n\\.\n"], []))
    b"SET default_tablespace = '';\nCOPY a FROM stdin;\nSET default_tablespace = gone;\n\\.\n"
    """
    in_rows = False
    rest = b""
    begun = False  # the line that `rest` goes on with was begun, and passed on, before

    def mended(block: bytes) -> Iterator[bytes]:
        nonlocal in_rows
        done = 0
        for line in _LINE.finditer(block):
            if begun and line.start() == 0:
                continue
            if in_rows:
                in_rows = line["end"] is None
            elif line["rows"] is not None:
                in_rows = True
            elif line["name"] is not None and _name(line["name"]) not in {*known, ""}:
                yield block[done : line.start()] + _IN_DEFAULT
                done = line.end()
        yield block[done:]

    for chunk in chunks:
        block = rest + chunk
        cut = block.rfind(b"\n") + 1
        if cut:
            yield from mended(block[:cut])
            begun = False
        rest = block[cut:]
        if len(rest) > _LONGEST_LINE_BYTES:
            yield rest
            rest, begun = b"", True
    yield from mended(rest)


def _name(word: bytes) -> str:
    text = text_of(word)
    if text[:1] in ("'", '"'):
        return text[1:-1].replace(text[0] * 2, text[0])
    return text
