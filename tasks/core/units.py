"""Numbers as people say them."""

from __future__ import annotations


def size_text(count: float) -> str:
    """Write a number of bytes as people say it.

    >>> size_text(1_500_000)
    '1.5 MB'
    """
    for unit, digits, largest in (("bytes", 0, 999.5), ("kB", 1, 999.95), ("MB", 1, 999.95), ("GB", 1, 999.95)):
        if abs(count) < largest:  # what rounds to 1000 is told in the next unit
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration_text(seconds: float) -> str:
    """Write a duration as people say it.

    >>> duration_text(3700)
    '1 h 1 min'
    """
    if seconds < 0:
        return f"-{duration_text(-seconds)}"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
