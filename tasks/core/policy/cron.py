"""Whether a cron schedule of five fields can be one."""

from __future__ import annotations

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()), ("hour", 0, 23, ()), ("day of the month", 1, 31, ()), ("month", 1, 12, _MONTHS), ("day of the week", 0, 7, _DAYS),
)  # fmt: skip
_PART = re.compile(r"(?P<first>\*|[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?(?:/(?P<step>[0-9]{1,4}))?")


def cron_problem(text: str) -> str:
    """Say which field of a schedule is wrong; empty where all five are right.

    The last day of a month may be `l`, the second Friday `fri#2`.

    >>> cron_problem("99 3 * * *")
    'has 99 as its minute'
    """
    fields = text.lower().split()
    if len(fields) != len(_FIELDS):
        return "has not five fields"
    for field, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if not _is_part(part, low, high, names):
                return f"has {part[:20] or 'nothing'} as its {name}"
    return ""


def _is_part(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    if high == 31 and part == "l":
        return True
    if names is _DAYS and "#" in part:
        day, _, number = part.partition("#")
        return number in ("1", "2", "3", "4", "5") and _is_value(day, low, high, names)
    found = _PART.fullmatch(part)
    if found is None or (found["step"] is not None and int(found["step"]) == 0):
        return False
    if found["first"] == "*":
        return found["last"] is None
    return all(_is_value(each, low, high, names) for each in (found["first"], found["last"]) if each is not None)


def _is_value(text: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    return text in names or (text.isascii() and text.isdigit() and low <= int(text) <= high)
