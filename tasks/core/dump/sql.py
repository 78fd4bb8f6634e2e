"""Read a plain `pg_dump` as a stream of events, without ever holding more than a piece of it.

Only what pg_dump writes is understood: SQL statements, `COPY ... FROM stdin` with its rows, `\\restrict`,
`\\unrestrict` and `\\connect`, comments. Anything else is refused, above all psql's other backslash commands: they
would run programs. Bytes stay bytes: a dump is in any encoding that PostgreSQL knows as a server's, in which ASCII's
bytes are ASCII. (Source of the format: PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c and pg_backup_db.c; of what
ends a statement: src/fe_utils/psqlscan.l.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tasks.core.byte_text import text_of
from tasks.core.dump.events import (
    ClusterDump,
    Connect,
    CopyBegin,
    CopyData,
    CopyEnd,
    DumpComplete,
    DumpEvent,
    LargeObjectBegin,
    LargeObjectData,
    Section,
    Statement,
    Title,
)
from tasks.core.errors import ArchiveDamaged, DumpCutShort

TRAILER = b"-- PostgreSQL database dump complete"
CLUSTER_HEAD = b"-- PostgreSQL database cluster dump"
STATEMENT_LIMIT_BYTES = 64 * 1024 * 1024
SHORT_ROW_BYTES = 512

_TITLE = re.compile(
    rb"-- (?:Data for )?Name: (?P<name>.*); Type: (?P<kind>[^;]*); Schema: (?P<schema>.*); Owner:(?: (?P<owner>.*?))?"
    rb"(?:; Tablespace: .*)?\s*$",
    re.DOTALL,
)
_COPY = re.compile(rb"COPY (?P<target>.+) FROM stdin;", re.DOTALL)
_TOKEN_PATTERN = rb"""
      [eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'
    | '%s'
    | "[^"]*+(?:""[^"]*+)*+"
    | \$(?P<tag>(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?)\$.*?\$(?P=tag)\$
    | (?P<comment>--[^\n]*\n | /\*.*?\*/)
    | (?P<word>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)
    | (?P<space>\s+)
    | (?P<signs>[^A-Za-z_\x80-\xff'"$\-/;()\s]+)
    | (?P<single>.)
    """
_TOKEN = re.compile(_TOKEN_PATTERN % rb"[^']*+(?:''[^']*+)*+", re.DOTALL | re.VERBOSE)
# With standard_conforming_strings off a backslash is an escape in every string.
_TOKEN_WITH_ESCAPES = re.compile(_TOKEN_PATTERN % rb"[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+", re.DOTALL | re.VERBOSE)
_CONFORMING = re.compile(rb"SET\s+standard_conforming_strings\s*(?:=|TO)\s*'?(?P<value>\w+)'?\s*;", re.IGNORECASE)
_OPENS_A_TOKEN = re.compile(rb"""['"]|\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?(?:\$|\Z)|/\*|--""")
_CONNECT = re.compile(
    rb"""\\connect (?:-reuse-previous=on "dbname='(?P<complex>(?:[^'\\]|\\.)*)'"|"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[^\s"'\\-]\S*))\s*"""
)
_LO_OPEN = re.compile(rb"SELECT pg_catalog\.lo_open\('(\d{1,10})', \d{1,10}\);")
# Without standard_conforming_strings the backslash is doubled.
_LO_WRITE = re.compile(rb"SELECT pg_catalog\.lowrite\(0, [eE]?'\\{1,2}x([0-9a-f]*)'\);")
_LO_CLOSE = re.compile(rb"SELECT pg_catalog\.lo_close\(0\);")

_POST_DATA_KINDS = {
    "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "INDEX", "INDEX ATTACH", "STATISTICS", "RULE", "TRIGGER", "EVENT TRIGGER",
    "MATERIALIZED VIEW DATA", "POLICY", "ROW SECURITY", "PUBLICATION", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA",
    "SUBSCRIPTION", "SUBSCRIPTION TABLE", "DEFAULT ACL",
}  # fmt: skip
_DATA_KINDS = {"TABLE DATA", "SEQUENCE SET", "BLOBS", "BLOB DATA", "BLOB METADATA"}


def read_sql_dump(chunks: Iterable[bytes], *, conforming: bool = True) -> Iterator[DumpEvent]:
    """Yield the events of a plain dump; `conforming` is how standard_conforming_strings is at its beginning.

    Raise ArchiveDamaged where the bytes are no such dump, or end inside a statement or inside a table's rows. Whether the dump is
    complete is told by a `DumpComplete` event alone: callers must have seen it before they call a dump good.
    """
    return _Reader(iter(chunks), conforming).events()


def _database_of(found: re.Match[bytes]) -> str:
    """Give the name in a `\\connect` (src/fe_utils/string_utils.c, appendPsqlMetaConnect)."""
    if found["quoted"] is not None:
        return text_of(found["quoted"].replace(b'""', b'"'))
    if found["plain"] is not None:
        return text_of(found["plain"])
    return text_of(re.sub(rb"\\(.)", rb"\1", found["complex"].replace(b'""', b'"'), flags=re.DOTALL))


class _Reader:
    """The lexer's state: a buffer, the place in it, and the section of the dump we are in."""

    def __init__(self, chunks: Iterator[bytes], conforming: bool) -> None:
        self._chunks = chunks
        self._token = _TOKEN if conforming else _TOKEN_WITH_ESCAPES
        self._buffer = b""
        self._at = 0
        self._ended = False
        self._section: Section = "pre-data"
        self._in_large_object = False

    def events(self) -> Iterator[DumpEvent]:
        while self._skip_space():
            if self._looking_at(b"--"):
                yield from self._comment(self._line())
            elif self._looking_at(b"\\"):
                yield from self._backslash_command(self._line())
            else:
                statement = self._statement()
                copy = _COPY.fullmatch(statement)
                if copy:
                    self._section = "data"
                    yield CopyBegin(text_of(copy["target"]))
                    self._line()
                    yield from self._rows(copy["target"])
                    yield CopyEnd()
                else:
                    yield from self._sql(statement)

    def _comment(self, line: bytes) -> Iterator[DumpEvent]:
        if line == TRAILER:
            yield DumpComplete()
            return
        if line == CLUSTER_HEAD:
            yield ClusterDump()
            return
        # A name with a newline in it is the one thing that could make a title ambiguous; pg_dump replaces newlines by spaces.
        title = _TITLE.match(line)
        if title:
            kind = text_of(title["kind"])
            if kind in _DATA_KINDS:
                self._section = "data"
            elif self._section == "data" or kind in _POST_DATA_KINDS:
                self._section = "post-data"
            schema, owner = text_of(title["schema"]), text_of(title["owner"] or b"")
            yield Title(kind, "" if schema == "-" else schema, text_of(title["name"]), "" if owner == "-" else owner)

    def _backslash_command(self, line: bytes) -> Iterator[DumpEvent]:
        if found := _CONNECT.fullmatch(line):
            self._section = "pre-data"
            yield Connect(_database_of(found))
        elif not re.fullmatch(rb"\\(un)?restrict [A-Za-z0-9]+", line):
            raise ArchiveDamaged(
                f"the dump contains the psql command {line[:60].decode(errors='replace')!r}",
                hint="pg_dump writes none but \\restrict, \\unrestrict and \\connect; was the file edited?",
            )

    def _sql(self, statement: bytes) -> Iterator[DumpEvent]:
        if opened := _LO_OPEN.fullmatch(statement):
            self._in_large_object = True
            yield LargeObjectBegin(int(opened[1]))
        elif written := _LO_WRITE.fullmatch(statement):
            if not self._in_large_object:
                raise ArchiveDamaged("the dump writes to a large object that it has not opened")
            try:
                content = bytes.fromhex(written[1].decode())
            except ValueError as error:
                raise ArchiveDamaged("the dump holds half a byte of a large object") from error
            yield LargeObjectData(content)
        elif _LO_CLOSE.fullmatch(statement):
            self._in_large_object = False
        elif statement not in (b"BEGIN;", b"COMMIT;"):  # pg_dump wraps large objects in these; the loader does its own
            if conforming := _CONFORMING.fullmatch(statement):
                on = conforming["value"].lower() in (b"on", b"true", b"yes", b"1")
                self._token = _TOKEN if on else _TOKEN_WITH_ESCAPES
            yield Statement(statement, self._section)

    def _rows(self, target: bytes) -> Iterator[DumpEvent]:
        at_row_start = True
        while True:
            if at_row_start:
                while len(self._buffer) - self._at < 3 and self._fill():
                    pass
                if self._looking_at(b"\\.\n"):
                    self._at += 3
                    return
            end = self._find_end_of_rows()
            if end >= 0:
                yield CopyData(self._take(end + 1))
                self._at += 3
                return
            # Keep back the last three bytes: the end mark may be cut in two.
            stop = len(self._buffer) - 3
            if stop > self._at:
                newline = self._buffer.rfind(b"\n", self._at, stop)
                stop = newline + 1 if newline >= 0 else stop
                data = self._take(stop)
                at_row_start = data.endswith(b"\n")
                yield CopyData(data)
            if not self._fill():
                raise DumpCutShort(f"the dump ends inside the rows of {target.decode(errors='replace')[:80]}")

    def _find_end_of_rows(self) -> int:
        """Give the place of the newline before the end mark; -1 where the buffer holds none.

        Rows of attachments are long: leaping from newline to newline is many times quicker there than looking for the
        whole mark. Short rows are searched at one go.
        """
        at = self._at
        while (newline := self._buffer.find(b"\n", at)) >= 0:
            if self._buffer.startswith(b"\\.\n", newline + 1):
                return newline
            if newline - at < SHORT_ROW_BYTES:
                return self._buffer.find(b"\n\\.\n", newline)
            at = newline + 1
        return -1

    def _statement(self) -> bytes:
        """Take one statement up to the semicolon that ends it, past quotes, comments, parentheses and SQL function bodies."""
        length = 0  # of the statement so far; counted from self._at, which filling may move
        body = _FunctionBody()
        parentheses = 0
        while True:
            token = self._token.match(self._buffer, self._at + length)
            if token is None or (not self._ended and token.end() == len(self._buffer)) or self._is_cut(token):
                # The token may go on in the next chunk: read it again from its start when there is more.
                if len(self._buffer) - self._at > STATEMENT_LIMIT_BYTES:
                    raise ArchiveDamaged(f"the dump holds a statement of more than {STATEMENT_LIMIT_BYTES} bytes")
                # A long literal is read again when there is twice as much of it, not for every piece.
                more = min(2 * (len(self._buffer) - self._at), STATEMENT_LIMIT_BYTES + 1)
                if not self._fill(more) and (token is None or self._is_cut(token)):
                    cut = self._buffer[self._at : self._at + 60].decode(errors="replace")
                    raise DumpCutShort(f"the dump ends inside the statement {cut!r}")
                continue
            length = token.end() - self._at
            if token["space"] or token["comment"]:
                continue
            if not parentheses:
                body.see(token["word"], token[0])
            if single := token["single"]:
                parentheses += {b"(": 1, b")": -1}.get(single, 0)
                if single == b";" and parentheses <= 0 and not body.depth:
                    return self._take(self._at + length)

    def _is_cut(self, token: re.Match[bytes]) -> bool:
        """Tell whether what was found is really the beginning of a literal or comment that has no end yet."""
        if token["word"] in (b"e", b"E"):
            return self._buffer.startswith(b"'", token.end())
        return bool(token["single"] and _OPENS_A_TOKEN.match(self._buffer, token.start()))

    def _skip_space(self) -> bool:
        """Move to the next byte that is not space; tell whether there is one."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at : self._at + 1] in (b" ", b"\n", b"\t", b"\r"):
                self._at += 1
            if self._at < len(self._buffer):
                return True
            if not self._fill():
                return False

    def _looking_at(self, text: bytes) -> bool:
        while len(self._buffer) - self._at < len(text) and self._fill():
            pass
        return self._buffer.startswith(text, self._at)

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if len(self._buffer) - self._at > STATEMENT_LIMIT_BYTES:
                raise ArchiveDamaged("the dump holds a comment without an end")
            if not self._fill():
                return self._take(len(self._buffer))
        line = self._take(end)
        self._at += 1
        return line

    def _take(self, end: int) -> bytes:
        taken = self._buffer[self._at : end]
        self._at = end
        return taken

    def _fill(self, least_bytes: int = 0) -> bool:
        """Append the next chunk to what is left of the buffer, and more until it has so many bytes; tell whether there was one."""
        pieces = [self._buffer[self._at :]]
        gathered = len(pieces[0])
        for chunk in self._chunks:
            if chunk:
                pieces.append(chunk)
                gathered += len(chunk)
                if gathered >= least_bytes:
                    break
        else:
            self._ended = True
        self._buffer, self._at = b"".join(pieces), 0
        return len(pieces) > 1


class _FunctionBody:
    """Follow `CREATE FUNCTION ... BEGIN ATOMIC ...; END`, whose semicolons end no statement.

    psql takes any `begin` after CREATE FUNCTION for the opening, and stumbles over a column of that name. But it is
    followed by ATOMIC, never comes a second time, and within it only CASE and END are words that no name is written as
    without quotes (they are reserved).
    """

    def __init__(self) -> None:
        self.depth = 0
        self._words: list[bytes] = []
        self._previous = b""
        self._closed = False

    def see(self, word: bytes | None, token: bytes) -> None:
        """Take the next token outside parentheses that is neither space nor comment; `word` where it is one."""
        previous, self._previous = self._previous, token.lower()
        if word is None or previous.endswith(b"."):  # what follows a dot is a name
            return
        word = word.lower()
        if len(self._words) < 4:
            self._words.append(word)
        words = self._words[:1] + self._words[3:] if self._words[1:3] == [b"or", b"replace"] else self._words
        if words[:1] != [b"create"] or words[1:2] not in ([b"function"], [b"procedure"]) or self._closed:
            return
        if not self.depth:
            self.depth = int(word == b"atomic" and previous == b"begin")
        elif word == b"case":
            self.depth += 1
        elif word == b"end":
            self.depth -= 1
            self._closed = not self.depth
