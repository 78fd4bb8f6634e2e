"""What a logical dump consists of, whichever format it is written in.

`sql_dump` and `custom_dump` turn the bytes of `pg_dump` into these events in the order of the dump; the census reads them,
and so does the loader. Row data is never gathered: a row of 200 MB arrives in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Section = Literal["pre-data", "data", "post-data"]


@dataclass(frozen=True, slots=True)
class Title:
    """The object that the following statements belong to, as pg_dump names it.

    `kind` is pg_dump's word ("TABLE", "INDEX", "FK CONSTRAINT", ...); `owner` is "" where it has none.
    """

    kind: str
    schema: str
    name: str
    owner: str

    def __str__(self) -> str:
        """Name the object in words: `TABLE DATA public.a`."""
        return " ".join(
            part for part in (self.kind, f"{self.schema}.{self.name}" if self.schema else self.name) if part
        )


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement with its final semicolon, in the section of the dump where it stands."""

    sql: bytes
    section: Section


@dataclass(frozen=True, slots=True)
class CopyBegin:
    """The rows of a table follow. `target` is the quoted table with its columns (`public.t (a, b)`), spelled as in `byte_text`."""

    target: str

    @property
    def statement(self) -> str:
        """Give the COPY statement that loads these rows."""
        return f"COPY {self.target} FROM stdin"

    @property
    def reading(self) -> str:
        """Give the COPY statement that gives them back."""
        return f"COPY {self.target} TO stdout"


@dataclass(frozen=True, slots=True)
class CopyData:
    """Bytes of rows in COPY's text format; a row may go on in the next event. Ends with a newline when a row ends here."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CopyEnd:
    """The rows of the table are complete."""


@dataclass(frozen=True, slots=True)
class LargeObjectBegin:
    """The bytes of one large object follow as `LargeObjectData`."""

    oid: int


@dataclass(frozen=True, slots=True)
class LargeObjectData:
    """Bytes of the large object that was begun last."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ClusterDump:
    """What follows is a dump of a whole server, by pg_dumpall."""


@dataclass(frozen=True, slots=True)
class Connect:
    """What follows goes into the database of this name; only dumps by pg_dumpall, or with `--create`, say so."""

    database: str


@dataclass(frozen=True, slots=True)
class DumpComplete:
    """The dump's own sign that it was written to its end. A dump without it is cut short."""


DumpEvent: TypeAlias = (
    Title
    | Statement
    | CopyBegin
    | CopyData
    | CopyEnd
    | LargeObjectBegin
    | LargeObjectData
    | ClusterDump
    | Connect
    | DumpComplete
)
