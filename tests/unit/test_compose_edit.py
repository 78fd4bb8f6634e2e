"""The compose file is changed by a few characters, or not at all: what an upgrade writes into an operator's own file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.core.errors import Refused
from tasks.core.stack.compose_edit import Text, change_image, change_mount

PLAIN = """# mine
services:
  mailarchive-app: {image: s1t5/mailarchiver:latest}
  postgres:   # the database
    image: postgres:15-alpine # keep an eye on it
    volumes:
    - ./postgres-data:/var/lib/postgresql/data:rw
"""
NEW = "postgres:17-alpine"
OLD_PLACE, NEW_PLACE = "/var/lib/postgresql/data", "/var/lib/postgresql"


def file(text: str, name: str = "docker-compose.yml") -> Text:
    return Text(Path("/srv/mail") / name, text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("postgres:15-alpine", "postgres:17-alpine"),
        ('"postgres:15-alpine"', '"postgres:17-alpine"'),
        ("'postgres:15-alpine'", "'postgres:17-alpine'"),
        ("${IMAGE:-postgres:15-alpine}", "${IMAGE:-postgres:17-alpine}"),
        ("postgres:${TAG-15}-alpine", "postgres:${TAG-17}-alpine"),
    ],
)
def test_only_the_image_changes(before: str, after: str) -> None:
    text = PLAIN.replace("postgres:15-alpine", before)

    changed = change_image([file(text)], [], "postgres", NEW)

    assert changed.text == PLAIN.replace("postgres:15-alpine", after)


def test_of_several_files_the_last_that_names_an_image_is_changed() -> None:
    override = file("services:\n  postgres:\n    image: postgres:15\n", "docker-compose.override.yml")
    other = file("services:\n  postgres:\n    shm_size: 1g\n", "more.yml")

    changed = change_image([file(PLAIN), override, other], [], "postgres", NEW)

    assert (changed.path.name, yaml.safe_load(changed.text)["services"]["postgres"]["image"]) == (
        override.path.name,
        NEW,
    )


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("TAG=15", "TAG=17"),
        ("export TAG='15'  # alpine", "export TAG='17'  # alpine"),
        ('TAG = "15"', 'TAG = "17"'),
    ],
)
def test_a_variable_of_the_env_file_is_changed_there(line: str, after: str) -> None:
    text = PLAIN.replace("postgres:15-alpine", "postgres:${TAG:-14}-alpine")

    changed = change_image([file(text)], [file(f"A=1\n{line}\nB=2\n", ".env")], "postgres", NEW)

    assert (changed.path.name, changed.text) == (".env", f"A=1\n{after}\nB=2\n")


APPLICATION, NEWER = "mailarchive-app", "s1t5/mailarchiver:2609.1"


def test_the_application_stands_in_one_line_with_its_service() -> None:
    changed = change_image([file(PLAIN)], [], APPLICATION, NEWER)

    assert changed.text == PLAIN.replace("s1t5/mailarchiver:latest", NEWER)


def test_the_tag_of_the_application_comes_from_the_env_file() -> None:
    text = PLAIN.replace("{image: s1t5/mailarchiver:latest}", "\n    image: s1t5/mailarchiver:${TAG}")

    changed = change_image([file(text)], [file("TAG=2608.1\n", ".env")], APPLICATION, NEWER)

    assert (changed.path.name, changed.text) == (".env", "TAG=2609.1\n")


@pytest.mark.parametrize(
    ("text", "env"),
    [
        (PLAIN.replace("image: postgres:15-alpine", "image: ${A}${B}"), "A=postgres:\nB=15\n"),
        (PLAIN.replace("image: postgres:15-alpine", "image: ${A}"), "B=1\n"),
        (PLAIN.replace("image: postgres:15-alpine", "image: ${A}"), "A=postgres:15\nA=postgres:16\n"),
        (PLAIN.replace("image: postgres:15-alpine", "image: ${A}"), "A=${B}\n"),
        (PLAIN.replace("image: postgres:15-alpine", "image: registry/postgres:${A}"), "A=15\n"),
        (PLAIN.replace("image: postgres:15-alpine", "extends: {file: base.yml, service: postgres}"), ""),
        (PLAIN.replace("image: postgres:15-alpine", "image: >-\n      postgres:15-alpine"), ""),
        ("x: &pg postgres:15\nservices:\n  postgres:\n    image: *pg\n", ""),
        ("x: &pg {image: postgres:15}\nservices:\n  postgres: *pg\n", ""),
        ("x: &pg {image: postgres:15}\nservices:\n  postgres:\n    <<: *pg\n", ""),
        ("services: [", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_not_sure_is_refused_with_a_way_out(text: str, env: str) -> None:
    with pytest.raises(Refused) as refused:
        change_image([file(text)], [file(env, ".env")], "postgres", NEW)

    assert "docker compose up -d" in refused.value.hint


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("./postgres-data:/var/lib/postgresql/data:rw", "./postgres-data:/var/lib/postgresql:rw"),
        ("postgres-data:/var/lib/postgresql/data", "postgres-data:/var/lib/postgresql"),
        ("{type: bind, source: ./d, target: /var/lib/postgresql/data}", "{type: bind, source: ./d, target: /var/lib/postgresql}"),
    ],
)  # fmt: skip
def test_only_the_place_of_the_mount_changes(before: str, after: str) -> None:
    text = PLAIN.replace("./postgres-data:/var/lib/postgresql/data:rw", before)

    assert change_mount([file(text)], "postgres", OLD_PLACE, NEW_PLACE).text == text.replace(before, after)


def test_a_mount_that_is_not_found_is_refused() -> None:
    with pytest.raises(Refused, match="not exactly one volume"):
        change_mount([file(PLAIN)], "postgres", "/elsewhere", NEW_PLACE)
