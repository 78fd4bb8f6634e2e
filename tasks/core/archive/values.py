"""What values in an archive's manifest, in records and in states may be: bounded, so that every later sum and sentence can be made."""

from __future__ import annotations

from datetime import UTC, datetime
from types import UnionType
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

# What a stranger's text may say, so that every later sum, comparison and sentence is one that Python can make and a person can read.
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Number = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Seconds = Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)]
Age = Annotated[float, Field(ge=-1e11, le=1e11, allow_inf_nan=False)]
Moment = Annotated[AwareDatetime, Field(ge=datetime(1990, 1, 1, tzinfo=UTC), le=datetime(2500, 1, 1, tzinfo=UTC))]
Name = Annotated[str, Field(max_length=1024)]
Strings = Annotated[list[str], Field(fail_fast=True)]
Sentences = Annotated[list[Annotated[str, Field(max_length=65_536)]], Field(fail_fast=True)]
Sha256 = Annotated[str, Field(max_length=64)]


def values_of(kind: type | UnionType, at_most: int) -> BeforeValidator:
    """Stop at the first value of another kind, and at too many: pydantic would complain of each of a hundred thousand."""

    def check(given: Any) -> Any:
        if isinstance(given, dict):
            if len(given) > at_most:
                raise ValueError(f"it has {len(given):,} entries, more than {at_most:,}")
            for name, each in given.items():
                if not isinstance(each, kind):
                    raise ValueError(f"{name[:80]!r} has a value of the wrong kind")
        return given

    return BeforeValidator(check)


Texts = Annotated[dict[str, str], values_of(str, 300_000)]


class Value(BaseModel):
    """A frozen value that reads and writes JSON; what a newer version added means nothing here, and is written again as it was read.

    It must stay, for signatures cover it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
