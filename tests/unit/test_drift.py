"""How a container differs from what the compose file says now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.core.stack.compose_model import ComposePort, ComposeService
from tasks.core.stack.drift import Made, drift_of
from tasks.core.stack.installation import Mount

DATA = Mount("bind", "/srv/data", "/data", Path("/srv/data"))
SAYS = ComposeService(
    "db", "postgres:17", "", "", "no", {"A": "1"}, (DATA,), (), (), (ComposePort(5432, "5432", ""),), ()
)
MADE = Made(
    "postgres:17",
    {"A": "1", "PATH": "/bin"},
    (DATA, Mount("volume", "f" * 64, "/anonymous", None)),
    {(5432, 5432)},
    "hash",
    "5",
)


@pytest.mark.parametrize(
    ("made", "says", "hash_now", "words"),
    [
        (MADE, SAYS, "hash", []),
        (replace(MADE, image="docker.io/library/postgres:17"), SAYS, "hash", []),
        (replace(MADE, image="sha256:0123"), SAYS, "hash", []),
        (replace(MADE, image="postgres:16"), SAYS, "other", ["runs the image postgres:16"]),
        (MADE, replace(SAYS, environment={"A": "secret", "B": "secret"}), "other", ["for A, B"]),
        (MADE, replace(SAYS, mounts=()), "other", ["mounts /srv/data at /data, the compose file does not"]),
        (MADE, replace(SAYS, mounts=(replace(DATA, source="/new"),)), "other", ["the compose file says /new"]),
        (
            MADE,
            replace(SAYS, mounts=(DATA, Mount("volume", "", "/more", None))),
            "other",
            ["does not mount a volume at /more"],
        ),
        (MADE, replace(SAYS, ports=(ComposePort(5432, "5433", ""),)), "other", ["does not publish 5432 as 5433"]),
        (MADE, SAYS, "other", ["another version of its part"]),
        (replace(MADE, compose_version="2"), SAYS, "other", []),
        (MADE, SAYS, "", []),
        (MADE, None, "", ["is not in the compose files any more"]),
        (None, SAYS, "hash", []),
    ],
)
def test_drift(made: Made | None, says: ComposeService | None, hash_now: str, words: list[str]) -> None:
    """One sentence for each difference, and no value of the environment."""
    told = drift_of("db", made, says, hash_now=hash_now, version_now="5")

    assert len(told) == len(words)
    assert all(each in one for each, one in zip(words, told, strict=True))
    assert "secret" not in " ".join(told)
