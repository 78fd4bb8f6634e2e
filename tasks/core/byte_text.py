"""Text from a database whose bytes need not be UTF-8: SQL_ASCII takes any, and a dump is in the database's own encoding.

Bytes that are no UTF-8 become characters of a private range at the end of Unicode, one for each byte, and come back as these bytes. Unlike
Python's `surrogateescape` the result is ordinary text: JSON, files and messages take it. (What already was of that range is spelled the
same way, byte by byte, so that nothing is ambiguous.)
"""

from __future__ import annotations

import re

_FIRST = 0x10FF80  # stands for byte 0x80; 0x10FFFF for byte 0xFF
_PRIVATE_BYTES = re.compile(b"\xf4\x8f[\xbe\xbf][\x80-\xbf]")
_SURROGATE = re.compile("[\udc80-\udcff]")
_SPELLED = re.compile("[\U0010ff80-\U0010ffff]")


def text_of(raw: bytes | memoryview) -> str:
    """Read bytes as UTF-8; those that are none are spelled so that `bytes_of` finds them.

    >>> bytes_of(text_of(b"f\\xfcr")) == b"f\\xfcr"
    True
    """
    raw = bytes(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        pass
    else:
        if not _SPELLED.search(text):
            return text
    # The private range itself is taken apart first: its bytes are as foreign as any.
    parts, at = [], 0
    for found in _PRIVATE_BYTES.finditer(raw):
        parts += [_spell(raw[at : found.start()]), "".join(chr(_FIRST + byte - 0x80) for byte in found[0])]
        at = found.end()
    return "".join([*parts, _spell(raw[at:])])


def bytes_of(text: str) -> bytes:
    """Give the bytes that `text_of` has read; any other text is UTF-8."""
    if not _SPELLED.search(text):
        return text.encode()
    return _SPELLED.sub(lambda found: chr(0xDC00 + ord(found[0]) - _FIRST + 0x80), text).encode(
        "utf-8", "surrogateescape"
    )


def shown(text: str) -> str:
    r"""Write such text for people: `f\xfcr`."""
    return _SPELLED.sub(lambda found: f"\\x{ord(found[0]) - _FIRST + 0x80:02x}", text)


def _spell(raw: bytes) -> str:
    text = raw.decode("utf-8", "surrogateescape")
    return _SURROGATE.sub(lambda found: chr(_FIRST + ord(found[0]) - 0xDC80), text)
