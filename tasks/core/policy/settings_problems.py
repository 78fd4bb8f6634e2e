"""Tell what is wrong with settings: the place, the problem, the value seen, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, get_args

from pydantic import BaseModel, ValidationError

from tasks.core.archive.recipients import looks_secret
from tasks.core.errors import UsageError

_SHOWN_CHARACTERS = 80
# Addresses of notifications carry tokens, and an error goes to logs and screens.
# So may what was written as an rclone remote.
_SECRET_KEYS = {"url", "remote"}


def refuse(source: str, problems: Sequence[str]) -> NoReturn:
    """Raise UsageError with every problem on a line of its own."""
    unique = list(dict.fromkeys(problems))
    count = "one problem" if len(unique) == 1 else f"{len(unique)} problems"
    lines = "".join(f"\n  - {problem}" for problem in unique)
    raise UsageError(
        f"the settings in {source} have {count}:{lines}",
        hint="the file that `mailarchiver-backup init` writes explains every key; nothing was touched",
    )


def places_problems(found: Iterable[object], known: Sequence[str], place: str) -> list[str]:
    """List the unknown keys of a mapping, each with the key that was probably meant."""
    prefix = f"{place}." if place else ""
    return [f"{prefix}{key}: unknown key{_suggestion(str(key), known)}" for key in found if key not in known]


def problems_in(error: ValidationError, model: type[BaseModel], place: str, *, from_defaults: set[Any]) -> list[str]:
    """Put pydantic's errors into our words. Sections that came from the defaults are named as such."""
    problems = []
    for each in error.errors(include_url=False):
        location = each["loc"]
        base = "defaults" if location and location[0] in from_defaults else place
        where = ".".join([base, *(str(part) for part in location)])
        value = each["input"]
        if each["type"] == "extra_forbidden":
            problems.append(f"{where}: unknown key{_suggestion(str(location[-1]), _keys_at(model, location[:-1]))}")
        elif each["type"] == "missing":
            problems.append(f"{where}: is missing")
        elif (location and location[-1] in _SECRET_KEYS) or isinstance(value, Mapping | BaseModel):
            problems.append(f"{where}: {_words(each['msg'])}")
        else:
            problems.append(f"{where}: {_words(each['msg'])}, but it is {_shown(value)}")
    return problems


def _words(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]


def _shown(value: object) -> str:
    text = repr(value)
    if looks_secret(text):
        return "a secret, not shown"
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _suggestion(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Find the keys of the section at this place."""
    current = model
    for part in location:
        field = current.model_fields.get(str(part))
        if field is None:
            continue
        inner = [field.annotation, *get_args(field.annotation)]
        current = next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), current)
    return list(current.model_fields)
