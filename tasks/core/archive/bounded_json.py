"""Read JSON that a stranger may have written, in memory proportional to its length.

A value of two bytes (`1,` or `[]`) becomes an object of a hundred in memory, and a complaint about it another. So what
a text may hold is judged by its bones, the text without its strings, before anything is made of it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

TEXT_LIMIT_BYTES = 12 << 20
"""The largest manifest or record: enough for a hundred thousand files, and for twenty thousand tables."""
DEPTH_LIMIT = 32
BYTES_PER_VALUE = 16
"""What a value takes in a text of ours, at least and on average: a member has a hundred bytes in four."""
BYTES_PER_CONTAINER = 40
FEW = 2000
NUMBER_LIMIT_DIGITS = 40

_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# As many whole strings as are taken out at once: each costs eighty bytes meanwhile.
_STRETCH = re.compile(rb'(?:[^"]*+"[^"\\]*+(?:\\.[^"\\]*+)*+"){1,10000}+', re.DOTALL)


def read_object(text: bytes | str) -> dict[str, Any]:
    """Read an object; raise ValueError, in words, for anything else, and for what would be out of proportion in memory.

    >>> read_object('{"a": [1, 2.5, "b"]}')
    {'a': [1, 2.5, 'b']}
    >>> read_object('{"a": NaN}')
    Traceback (most recent call last):
    ValueError: NaN is no number
    """
    raw = text.encode() if isinstance(text, str) else text
    bones = _bones(raw)
    containers = bones.count(b"{") + bones.count(b"[")
    if containers > FEW + len(raw) // BYTES_PER_CONTAINER or bones.count(b",") > FEW + len(raw) // BYTES_PER_VALUE:
        raise ValueError("it holds more values than a text of its length would")
    if _depth(bones) > DEPTH_LIMIT:
        raise ValueError(f"it is nested more than {DEPTH_LIMIT} deep")
    try:
        value = json.loads(raw, parse_constant=_refuse, parse_int=_whole, parse_float=_number)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    if _HALF.search(raw):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character") from None
    return value


def _bones(raw: bytes) -> bytes:
    parts, at = [], 0
    while found := _STRETCH.match(raw, at):
        parts.append(_STRING.sub(b"", found[0]))
        at = found.end()
    return b"".join([*parts, raw[at:]])


def _depth(bones: bytes) -> int:
    deepest = depth = 0
    for found in re.finditer(rb"[\[{\]}]", bones):
        depth += 1 if found[0] in b"[{" else -1
        if depth > deepest:
            deepest = depth
            if deepest > DEPTH_LIMIT:
                break
    return deepest


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _whole(digits: str) -> int:
    if len(digits) > NUMBER_LIMIT_DIGITS:
        raise ValueError(f"it holds a number of {len(digits):,} digits")
    return int(digits)


def _number(digits: str) -> float:
    if len(digits) > 2 * NUMBER_LIMIT_DIGITS:
        raise ValueError(f"it holds a number of {len(digits):,} digits")
    found = float(digits)
    if not math.isfinite(found):
        raise ValueError(f"{digits} is more than a number can be")
    return found
