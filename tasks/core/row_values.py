r"""Take rows and passwords out of what PostgreSQL and its programs say.

An error tells where, not what somebody has stored there.

A table of mail accounts holds passwords in clear text, and PostgreSQL shows the row that it stumbles over.
"""

from __future__ import annotations

import re

# Words that PostgreSQL itself does not say there: it shortens long values by dots.
LEFT_OUT = "(left out)"
_OUT = re.escape(LEFT_OUT)
# A message that was left out of before is part of a longer one: what follows there is no row.
_NAME = rf"(?:(?!: {_OUT}|=\({_OUT}).)+?"
# Each keeps what is before a value, and takes all behind it away: a value may hold whatever would mark its end.
_ROWS = (
    re.compile(rf"(?P<kept>Failing row contains \()(?!{_OUT}).*", re.DOTALL),
    re.compile(rf"(?P<kept>Key \({_NAME}\)=\()(?!{_OUT}).*", re.DOTALL),
    re.compile(rf"(?P<kept>\bCOPY {_NAME}, line \d+(?:, column {_NAME})?: )(?!{_OUT}).*", re.DOTALL),
    re.compile(rf"(?P<kept>\bJSON data, line \d+: )(?!{_OUT}).*", re.DOTALL),
    re.compile(rf"(?P<kept>\bparameter \$\d+ = )(?!{_OUT}).*", re.DOTALL),
)
# What cannot be read as a value of its type: `invalid input syntax for type integer: "hunter2"`, `value "hunter2" is out of range`.
_VALUES = (
    re.compile(
        r"(?P<kept>(?:invalid input (?:syntax|value) for [^:\"]+|malformed [^:\"]+ literal|field value out of range|invalid [a-z]+ value|could not parse [^:\"]+): )"
        rf'"(?!{_OUT}").*"',
        re.DOTALL,
    ),
    re.compile(rf'(?P<kept>\b(?:value|Token) )"(?!{_OUT}").*"(?= is (?:out of range|invalid|not))', re.DOTALL),
)
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
    for pattern in _VALUES:
        text = pattern.sub(lambda found: f'{found["kept"]}"{LEFT_OUT}"', text)
    return text


def without_literals(statement: str) -> str:
    """Leave the literals out of a statement that may hold a row or a password.

    >>> without_literals("ALTER ROLE a PASSWORD 'hunter2'")
    'ALTER ROLE a PASSWORD ...'
    """
    return _LITERAL.sub("...", statement) if _TELLING.search(statement) else statement
