"""What a name or a path given from outside may hold at all, before anything is done with it."""

from __future__ import annotations

PATH_LIMIT_BYTES = 4000  # the kernel's limit is 4096, and we add names to it
NAME_LIMIT_BYTES = 200  # the kernel's is 255, and we add suffixes
SHOWN_CHARACTERS = 60


def text_problem(value: str) -> str:
    """Say in words why a text can be no name and no path; empty where it can.

    >>> text_problem("a\\0b")
    'holds a NUL character'
    """
    if "\0" in value:
        return "holds a NUL character"
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    if len(encoded) > PATH_LIMIT_BYTES:
        return f"has {len(encoded):,} bytes, more than the {PATH_LIMIT_BYTES:,} that a path may have"
    longest = max((len(part) for part in encoded.split(b"/")), default=0)
    if longest > NAME_LIMIT_BYTES:
        return f"has a part of {longest:,} bytes, more than the {NAME_LIMIT_BYTES} that a name may have"
    return ""


def shown(value: str) -> str:
    """Quote a text for a message: escaped, and cut where it is long."""
    text = ascii(value) if not value.isprintable() else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
