"""Problems of settings are told in words: where, what, what was seen, and what was probably meant."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.core.errors import UsageError
from tasks.core.policy.settings_problems import places_problems, problems_in, refuse


class Inner(BaseModel):
    """A section."""

    model_config = ConfigDict(extra="forbid")

    keep_days: Annotated[int, Field(ge=0)] = 1


class Outer(BaseModel):
    """An installation."""

    model_config = ConfigDict(extra="forbid")

    directory: str
    url: str = ""
    retention: Inner = Inner()
    several: list[Inner] = Field(default_factory=list)


def problems_of(value: object, *, from_defaults: frozenset[str] = frozenset()) -> list[str]:
    """Tell what is wrong with an installation called main."""
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(value)
    return problems_in(caught.value, Outer, "installations.main", from_defaults=set(from_defaults))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, "installations.main.directory: is missing"),
        ({"directory": "x", "directry": "y"}, "installations.main.directry: unknown key; did you mean directory?"),
        (
            {"directory": "x", "zzz": "y"},
            "installations.main.zzz: unknown key; known are directory, url, retention, several",
        ),
        ({"directory": 5}, "installations.main.directory: should be a valid string, but it is 5"),
        ({"directory": "x", "retention": {"keep_day": 1}}, "installations.main.retention.keep_day: unknown key; did you mean keep_days?"),
        ({"directory": "x", "several": [{}, {"keepdays": 1}]}, "installations.main.several.1.keepdays: unknown key; did you mean keep_days?"),
        (
            {"directory": "x", "retention": {"keep_days": -1}},
            "installations.main.retention.keep_days: should be greater than or equal to 0, but it is -1",
        ),
    ],
)  # fmt: skip
def test_each_problem(value: object, problem: str) -> None:
    """The place is the path of keys in the file, and the keys suggested are those of that place."""
    assert problems_of(value) == [problem]


def test_every_problem_is_told_and_those_of_the_defaults_as_theirs() -> None:
    """A section that came from `defaults` is mended there."""
    found = problems_of({"retention": {"keep_days": "many"}, "x": 1}, from_defaults=frozenset({"retention"}))

    assert len(found) == 3
    assert any(each.startswith("defaults.retention.keep_days: ") for each in found)
    assert "installations.main.directory: is missing" in found


def test_neither_secrets_nor_whole_sections_nor_long_values_are_shown() -> None:
    """An error goes to logs and screens (P12)."""
    assert "canary" not in str(problems_of({"directory": "x", "url": ["canary"]}))
    assert "canary" not in str(problems_of({"directory": {"password": "canary"}}))
    (long,) = problems_of({"directory": ["y" * 500]})
    assert len(long) < 200
    assert long.endswith("...")


def test_unknown_keys_of_a_mapping() -> None:
    """At the top of the file there is no place to name; a key may be anything that YAML knows."""
    known = ["installations", "defaults"]

    assert places_problems(["installations"], known, "") == []
    assert places_problems(["instalations", 5, None], known, "") == [
        "instalations: unknown key; did you mean installations?",
        "5: unknown key; known are installations, defaults",
        "None: unknown key; known are installations, defaults",
    ]
    assert places_problems(["x"], known, "a.b")[0].startswith("a.b.x: unknown key")


def test_the_refusal_counts_and_lists_each_problem_once() -> None:
    """One defaults section that serves three installations is one problem."""
    with pytest.raises(UsageError) as caught:
        refuse("/etc/x.yaml", ["a: is missing", "b: is missing", "a: is missing"])

    assert caught.value.message == "the settings in /etc/x.yaml have 2 problems:\n  - a: is missing\n  - b: is missing"
    assert caught.value.hint
    with pytest.raises(UsageError, match="have one problem:"):
        refuse("it", ["a"])
