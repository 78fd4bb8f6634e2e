r"""Take rows and passwords out of what PostgreSQL and its programs say.

An error tells where, not what somebody has stored there. A table of mail accounts holds passwords in clear text, and PostgreSQL shows the row that it stumbles over.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Words that PostgreSQL itself does not say there: it shortens long values by dots.
LEFT_OUT = "(left out)"
_OUT = re.escape(LEFT_OUT)
# Each keeps what is before a value, and takes all behind it away: a value may hold whatever would mark its end.
_ROWS = (
    re.compile(rf"(?P<kept>Failing row contains \()(?!{_OUT}).*", re.DOTALL),
    re.compile(rf"(?P<kept>\bJSON data, line \d+: )(?!{_OUT}).*", re.DOTALL),
    re.compile(rf"(?P<kept>\bparameter \$\d+ = )(?!{_OUT}).*", re.DOTALL),
)
# A message that was left out of before may be part of a longer one: what follows there is no row.
_LEFT_OUT_THERE = re.compile(rf"(?=: {_OUT}|=\({_OUT})")
_COPY = re.compile(r"\bCOPY .", re.DOTALL)
_LINE = re.compile(r", line \d+(?:(?P<end>: )|, column )")
# What cannot be read as a value of its type: `invalid input syntax for type integer: "hunter2"`, `value "hunter2" is out of range`.
_VALUES = re.compile(
    r"(?P<kept>(?:invalid input (?:syntax|value) for [^:\"]{1,200}|malformed [^:\"]{1,200} literal|field value out of range|invalid [a-z]+ value"
    rf'|could not parse [^:\"]{{1,200}}): )"(?!{_OUT}").*"',
    re.DOTALL,
)
_VALUE = re.compile(rf'\b(?:value|Token) "(?!{_OUT}")')
_VALUE_ENDS = re.compile(r'"(?= is (?:out of range|invalid|not))')
_TELLING = re.compile(
    r"\b(?:password|options|connection|values|insert|update|set_config|user mapping)\b", re.IGNORECASE
)
_LITERAL = re.compile(r"'(?:[^']|'')*(?:'|$)|\$(\w*)\$.*?(?:\$\1\$|$)", re.DOTALL)


def without_rows(text: str) -> str:
    """Leave out of a message what stands in rows.

    >>> without_rows('missing data for column "b" (CONTEXT: COPY a, line 1: "1 hunter2")')
    'missing data for column "b" (CONTEXT: COPY a, line 1: (left out)'
    """
    for pattern in _ROWS:
        text = pattern.sub(lambda found: found["kept"] + LEFT_OUT, text)
    for ends in (_copy_ends, _key_ends):
        text = _cut(text, ends)
    text = _VALUES.sub(lambda found: f'{found["kept"]}"{LEFT_OUT}"', text)
    return _without_value(text)


def _without_value(text: str) -> str:
    """Leave out what stands between `value "` and the last `" is out of range` or the like."""
    last = max((each.start() for each in _VALUE_ENDS.finditer(text)), default=0)
    first = _VALUE.search(text, 0, last + 1)
    return text[: first.end()] + LEFT_OUT + text[last:] if first and first.end() <= last else text


def _cut(text: str, ends: Callable[[str], int]) -> str:
    """Leave out all behind the first place of which `ends` tells, looking between what was left out before."""
    at = 0
    for part in _LEFT_OUT_THERE.split(text):
        if end := ends(part):
            return text[: at + end] + LEFT_OUT
        at += len(part)
    return text


def _copy_ends(part: str) -> int:
    """Tell where `COPY table, line 3, column name: ` ends, 0 where there is none. A table or column may be called anything."""
    copy = _COPY.search(part)
    for line in _LINE.finditer(part, copy.end()) if copy else ():
        if line["end"]:
            return line.end()
        column = part.find(": ", line.end() + 1)
        return column + len(": ") if column >= 0 else 0
    return 0


def _key_ends(part: str) -> int:
    """Tell where `Key (columns)=(` ends, 0 where there is none."""
    key = part.find("Key (")
    values = part.find(")=(", key + len("Key (") + 1) if key >= 0 else -1
    return values + len(")=(") if values >= 0 else 0


def without_literals(statement: str) -> str:
    """Leave the literals out of a statement that may hold a row or a password.

    >>> without_literals("ALTER ROLE a PASSWORD 'hunter2'")
    'ALTER ROLE a PASSWORD ...'
    """
    return _LITERAL.sub("...", statement) if _TELLING.search(statement) else statement
