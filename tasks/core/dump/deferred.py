"""What a role without rights cannot do for others: owners and grants are held back while it loads, and given afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tasks.core.dump.events import DumpEvent, Statement, Title
from tasks.core.dump.statements import is_allowed
from tasks.core.dump.tokens import Token, tokens

_OWNED = frozenset({
    "AGGREGATE", "COLLATION", "CONVERSION", "DOMAIN", "FOREIGN", "FUNCTION", "LARGE", "MATERIALIZED", "OPERATOR", "PROCEDURE", "PUBLICATION",
    "SCHEMA", "SEQUENCE", "STATISTICS", "TABLE", "TEXT", "TYPE", "VIEW",
})  # fmt: skip
_LONGEST_BYTES = 100_000


@dataclass
class Deferred:
    """The statements about owners and privileges of a dump, in its order, each with the object that it is about."""

    statements: list[tuple[str, bytes]] = field(default_factory=list)

    def filter(self, events: Iterable[DumpEvent]) -> Iterator[DumpEvent]:
        """Pass on everything else."""
        about = ""
        self.statements.clear()
        for event in events:
            if isinstance(event, Title):
                about = str(event)
            if isinstance(event, Statement) and gives_rights(event.sql):
                self.statements.append((about, event.sql))
                continue
            if isinstance(event, Statement) and event.sql.startswith(b"SET client_encoding") and is_allowed(event.sql):
                self.statements.append(("", event.sql))  # names in what follows are spelled in it
            yield event


def gives_rights(sql: bytes) -> bool:
    """Tell whether a statement does nothing but give an owner, or privileges of objects.

    >>> gives_rights(b'ALTER TABLE public.a OWNER TO b;'), gives_rights(b'ALTER TABLE a ADD COLUMN b int DEFAULT f(), OWNER TO c;')
    (True, False)
    """
    if len(sql) > _LONGEST_BYTES or not sql.startswith((b"ALTER", b"GRANT", b"REVOKE")) or not is_allowed(sql):
        return False
    found = list(tokens(sql))
    words = [each.text if each.kind in ("word", "mark") else "" for each in found]
    if words[0] in ("GRANT", "REVOKE") or words[1:3] == ["DEFAULT", "PRIVILEGES"]:
        return words.count(";") == 1 and words[-1] == ";"
    # ALTER kind name OWNER TO role;
    return (
        words[1] in _OWNED
        and words[-5:-2] == [*words[-5:-4], "OWNER", "TO"]
        and words[-1] == ";"
        and found[-2].kind in ("word", "name")
        and words.count(";") == 1
        and not _lists(found)
    )


def _lists(found: list[Token]) -> bool:
    """Tell whether there is a comma outside parentheses: then a statement does several things."""
    depth = 0
    for each in found:
        if each.kind == "mark":
            depth += (each.text == "(") - (each.text == ")")
            if each.text == "," and depth == 0:
                return True
    return False
