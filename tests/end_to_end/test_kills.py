"""P1, P2, P3, P15: killed at any moment, by any signal.

The services are as they were, the content is the old or the new, the next run is green.

The short version of `python -m tests.campaigns.kills`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.campaigns.kills import CASES, Scene, kill_once, scene, see_green_run

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]

# Every case where the stack is stopped, and of a restore each that differs; where it is not, there is no watchdog, and one signal is
# like another.
KILLS = [
    *(("complete backup", *case) for case in CASES),
    ("full restore", *CASES[0]),
    ("full restore", *CASES[1]),
    ("hot backup", *CASES[0]),
    ("online backup", *CASES[1]),
    ("dump restore", *CASES[-1]),
]
# What is like one of them; `python -m tests.campaigns.kills` tries all again and again.
ALIKE = [
    ("full restore", *CASES[2]),
    ("hot backup", *CASES[1]),
    ("online backup", *CASES[0]),
    ("dump restore", *CASES[0]),
]


@pytest.fixture(scope="module")
def lent(images: None, module_state: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("kills")
    with scene(15, place) as made:
        yield made


@pytest.mark.parametrize(
    ("operation", "victim", "how"),
    [*KILLS, *(pytest.param(*each, marks=pytest.mark.long) for each in ALIKE)],
    ids=lambda value: getattr(value, "name", value),
)
def test_killed_at_a_random_moment(lent: Scene, operation: str, victim: str, how: int) -> None:
    kill_once(lent, operation, victim, how, random.Random())  # type: ignore[arg-type]


def test_and_then_a_green_run(lent: Scene) -> None:
    see_green_run(lent)
