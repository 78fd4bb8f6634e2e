"""What the values of the settings may be: sizes, counts, durations, paths; and sections, which know all of their keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tasks.core.policy.plain_input import text_problem

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def parse_bytes(value: object) -> object:
    """Read a size such as "10 GB" (10^9), "512 MiB" (2^20) or 4096; give anything else back for pydantic to refuse.

    >>> parse_bytes("1.5 GiB")
    1610612736
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError('is not a size; write bytes, or a number with a unit, such as "10 GB" or "512 MiB"')
    return round(min(float(match[1]) * _UNITS[match[2]], float(BYTES_LIMIT * 2)))


def _absolute(value: object) -> object:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("is not an absolute path")
    if ".." in value.split("/"):
        raise ValueError('contains ".."')
    if problem := text_problem(value):
        raise ValueError(problem)
    return value


# Far beyond what anybody means, and far below what the calendar, timers and disks can count.
BYTES_LIMIT = 2**60
COUNT_LIMIT = 100_000
DAYS_LIMIT = 36_500
SECONDS_LIMIT = 366 * 86_400
HOURS_LIMIT = 10 * 366 * 24

Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0, le=BYTES_LIMIT, strict=True)]
Count = Annotated[int, Field(ge=0, le=COUNT_LIMIT, strict=True)]
Days = Annotated[int, Field(ge=0, le=DAYS_LIMIT, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=SECONDS_LIMIT, allow_inf_nan=False)]
Hours = Annotated[float, Field(gt=0, le=HOURS_LIMIT, allow_inf_nan=False)]
AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]


class Section(BaseModel):
    """A frozen part of the settings that knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
