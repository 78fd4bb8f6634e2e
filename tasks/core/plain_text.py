r"""Make text from outside harmless before it reaches a terminal, a log, Markdown or HTML.

Names, labels, messages and settings may hold anything. A control character moves a cursor, changes a title or answers
for the operator; an override of direction shows a name backwards; a pipe, a backtick or a tag turns a cell of a table
into something else. What is harmless stays as it is: letters of every script, spaces, emoji.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

# C0 without tab and newline, DEL, C1; line and paragraph separators; what turns the direction of writing, or is not
# seen at all; halves of characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_BREAKS = re.compile(r"[\t\n]+")
# Whatever is code already, or escaped, is left; of a tag its beginning is enough.
_TAG = re.compile(r"^```[^`\n]*\n.*?^```$|`[^`\n]*`|\\.|<(?=[A-Za-z/!?])", re.DOTALL | re.MULTILINE)


def plain(text: str) -> str:
    r"""Write what moves, hides or turns text as its escape; lines and tabs stay.

    >>> plain("a\x1b[2Jb")
    'a\\x1b[2Jb'
    >>> plain("Größe: 3 €\n")
    'Größe: 3 €\n'
    """
    return _UNSEEN.sub(lambda found: _escaped(found[0]), text)


def plain_line(text: str) -> str:
    """Do the same for a text that must stay in its line."""
    return plain(_BREAKS.sub(" ", text))


def markdown(page: str) -> str:
    r"""Make a page of Markdown harmless that holds texts from outside: no tag in it is HTML.

    >>> markdown("a <img src=x> `<b>`")
    'a \\<img src=x> `<b>`'
    """
    return _TAG.sub(lambda found: r"\<" if found[0] == "<" else found[0], plain(page))


def line(text: str) -> str:
    r"""Write a text as a part of a line of Markdown: no tag, no link, no line of its own.

    >>> line("a\n# <b> [x](javascript:y)")
    'a # \\<b> [x]\\(javascript:y)'
    """
    return plain_line(text).replace("<", r"\<").replace("](", r"]\(")


def cell(text: str) -> str:
    r"""Write a text as a cell of a Markdown table.

    >>> cell("a|b")
    'a\\|b'
    """
    return line(text).replace("|", r"\|")


def plain_values(value: Any) -> Any:
    r"""Do as `plain` does to every text in a value of JSON's kinds.

    >>> plain_values({"a": ["b\x1b", 1]})
    {'a': ['b\\x1b', 1]}
    """
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain_values(name): plain_values(inner) for name, inner in value.items()}
    return [plain_values(inner) for inner in value] if isinstance(value, list | tuple) else value


class PlainFormatter(logging.Formatter):
    """Writes the lines of a log of ours: names and messages from outside reach terminals through logs too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, its traceback too."""
        return plain(super().format(record))


class PlainRecords(logging.Filter):
    """Does the same for handlers whose formatter is another's: Prefect's, to its server and to the worker's output."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Give the record a plain message; every record passes."""
        message = record.getMessage()
        if (harmless := plain(message)) != message:
            record.msg, record.args = harmless, None
        return True


def _escaped(letter: str) -> str:
    number = ord(letter)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
