"""Which upgrades are refused, and where the data lies afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.core.errors import Refused, UsageError
from tasks.core.stack.compatibility import Platform
from tasks.core.stack.upgrade import (
    Cluster,
    Layout,
    catalogue_differences,
    changes_of_platform,
    layout_after,
    refuse_unfit_upgrade,
    require_image_name,
)

OLD = Platform(15, "gnu", "2.36", "x86_64")
NEW = Platform(17, "gnu", "2.41", "x86_64")
CLUSTER = Cluster(15, OLD, {"plpgsql": "1.0", "citext": "1.6"})
HAS = {"plpgsql", "citext", "pgcrypto"}
DATA = "/var/lib/postgresql/data"


@pytest.mark.parametrize(
    ("cluster", "new", "available", "words"),
    [
        (CLUSTER, replace(NEW, major=15), HAS, "has 15 already"),
        (CLUSTER, replace(NEW, major=14), HAS, "is PostgreSQL 14"),
        (CLUSTER, NEW, {"plpgsql"}, "citext"),
        (replace(CLUSTER, others=("wiki",)), NEW, HAS, "wiki"),
        (replace(CLUSTER, tablespaces=("fast",)), NEW, HAS, "fast"),
        (replace(CLUSTER, kept=("db_before_1",)), NEW, HAS, "db_before_1"),
        (replace(CLUSTER, beside_data=("notes",)), NEW, HAS, "notes"),
    ],
)
def test_what_would_lose_something_is_refused(cluster: Cluster, new: Platform, available: set[str], words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        refuse_unfit_upgrade(cluster, new, available, image="postgres:17")

    assert refused.value.hint


def test_an_upgrade_that_is_fit() -> None:
    refuse_unfit_upgrade(CLUSTER, NEW, HAS, image="postgres:17")


@pytest.mark.parametrize(
    ("target", "pgdata_set", "image_pgdata", "layout"),
    [
        (DATA, "", DATA, Layout(DATA, DATA)),
        (DATA, f"{DATA}/pgdata", "/var/lib/postgresql/18/docker", Layout(f"{DATA}/pgdata", DATA)),
        (DATA, "", "/var/lib/postgresql/18/docker", Layout("/var/lib/postgresql/18/docker", "/var/lib/postgresql")),
        (
            "/var/lib/postgresql", "", "/var/lib/postgresql/19/docker",
            Layout("/var/lib/postgresql/19/docker", "/var/lib/postgresql"),
        ),
    ],
)  # fmt: skip
def test_where_the_data_will_lie(target: str, pgdata_set: str, image_pgdata: str, layout: Layout) -> None:
    assert layout_after(target=target, pgdata_set=pgdata_set, image_pgdata=image_pgdata) == layout


def test_a_layout_that_the_mount_does_not_hold_is_refused() -> None:
    with pytest.raises(Refused, match="/srv/db"):
        layout_after(target="/srv/db", pgdata_set="", image_pgdata=DATA)


@pytest.mark.parametrize("image", ["", "postgres:17 ", "Postgres:17", "--help", "a/../b", "postgres:$TAG", "x" * 300])
def test_what_is_no_image_is_refused(image: str) -> None:
    with pytest.raises(UsageError):
        require_image_name(image, current="postgres:15", anywhere=True)


def test_a_flow_run_cannot_name_somebody_elses_image() -> None:
    """Anyone who reaches Prefect's API would else choose the program that gets the mail."""
    require_image_name("evil/postgres:17", current="postgres:15", anywhere=True)
    with pytest.raises(UsageError, match="another repository"):
        require_image_name("evil/postgres:17", current="postgres:15", anywhere=False)


def test_a_change_of_the_c_library_is_told() -> None:
    assert "2.36 to gnu 2.41" in changes_of_platform(OLD, NEW)[0]
    assert changes_of_platform(OLD, OLD) == ()


def test_objects_that_are_missing_are_named() -> None:
    assert catalogue_differences({"indexes": 3, "views": 1}, {"indexes": 2, "views": 1}) == ["2 indexes, 3 before"]
