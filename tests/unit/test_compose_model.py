"""Compose files are read as Compose reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.stack.compose_model import (
    ComposePort,
    EnvFile,
    choose_files,
    may_name_env_files,
    parse_dot_env,
    parse_model,
    with_env_files,
)
from tasks.core.stack.installation import Mount


def model_of(service: dict[str, Any], **top: Any) -> Any:
    """Read a project with one service called app, as Compose prints it."""
    return parse_model(json.dumps({"name": "mail", "services": {"app": service}, **top})).services[0]


def test_a_service_with_nothing_has_composes_defaults() -> None:
    """A service that is built has the image's name that Compose gives it, and is not restarted."""
    app = model_of(
        {"command": None, "environment": None, "volumes": None, "depends_on": None, "networks": {"default": None}}
    )

    assert (app.image, app.restart, app.container_name, app.hostname) == ("mail-app", "no", "", "")
    assert (app.is_built, model_of({"build": {"context": "."}, "image": "mail:1"}).is_built) == (False, True)
    assert (app.environment, app.mounts, app.env_files, app.depends_on, app.ports, app.aliases) == (
        {},
        (),
        (),
        (),
        (),
        (),
    )


def test_services_are_in_order_of_their_names_and_found_by_them() -> None:
    """Whatever order they are written in; a project may have none at all."""
    model = parse_model(
        '{"name": "mail", "services": {"b": {}, "a": {"image": "x"}}}', warnings=["version is obsolete"]
    )

    assert [each.name for each in model.services] == ["a", "b"]
    assert (model.project, model.warnings) == ("mail", ("version is obsolete",))
    assert (found := model.service("a")) is not None
    assert found.image == "x"
    assert model.service("c") is None
    assert parse_model('{"name": "mail", "services": null}').services == ()


def test_a_dollar_sign_is_one() -> None:
    """Compose prints `$$` for it, in values, paths and names alike; a variable without a value is not set."""
    app = model_of({
        "environment": {"PASSWORD": "a$$b$$$$c", "NUMBER": 5, "ON": True, "UNSET": None, "EMPTY": ""},
        "volumes": [{"type": "bind", "source": "/srv/$$x", "target": "/data/$$y"}],
        "env_file": ["/srv/$$z.env"],
    })  # fmt: skip

    assert app.environment == {"PASSWORD": "a$b$$c", "NUMBER": "5", "ON": "True", "EMPTY": ""}
    assert app.mounts == (Mount("bind", "/srv/$x", "/data/$y", Path("/srv/$x")),)
    assert app.env_files == (EnvFile(Path("/srv/$z.env")),)


def test_passwords_of_a_service_are_not_in_its_picture() -> None:
    """What is logged of it carries no environment (P12)."""
    assert "canary" not in repr(model_of({"environment": {"PASSWORD": "canary"}}))


def test_mounts_of_every_kind() -> None:
    """A named volume has the name that Docker knows, an anonymous one none, and only a bind mount a place on the host."""
    app = model_of(
        {
            "volumes": [
                {"type": "volume", "source": "data", "target": "/a"},
                {"type": "volume", "source": "elsewhere", "target": "/b", "read_only": True},
                {"type": "volume", "target": "/c"},
                {"type": "bind", "source": "/srv/keys", "target": "/d", "read_only": True},
                {"type": "tmpfs", "target": "/e"},
                {"type": "npipe", "source": "x", "target": "/f"},
            ],
            "tmpfs": ["/g", "/h:size=64m"],
            "secrets": [
                {"source": "password"},
                {"source": "token", "target": "/else/token"},
                {"source": "of_environment"},
            ],
            "configs": [{"source": "conf", "target": "/etc/app.conf"}, {"source": "plain"}],
        },
        volumes={"data": {"name": "mail_data"}, "elsewhere": None},
        secrets={"password": {"file": "/srv/p"}, "token": {"file": "/srv/t"}, "of_environment": {"environment": "X"}},
        configs={"conf": {"file": "/srv/app.conf"}, "plain": {"file": "/srv/plain"}},
    )

    assert app.mounts == (
        Mount("volume", "mail_data", "/a", None),
        Mount("volume", "elsewhere", "/b", None, read_only=True),
        Mount("volume", "", "/c", None),
        Mount("bind", "/srv/keys", "/d", Path("/srv/keys"), read_only=True),
        Mount("tmpfs", "", "/e", None),
        Mount("tmpfs", "", "/g", None),
        Mount("tmpfs", "", "/h", None),
        Mount("bind", "/srv/p", "/run/secrets/password", Path("/srv/p"), read_only=True),
        Mount("bind", "/srv/t", "/else/token", Path("/srv/t"), read_only=True),
        Mount("bind", "/srv/app.conf", "/etc/app.conf", Path("/srv/app.conf"), read_only=True),
        Mount("bind", "/srv/plain", "/plain", Path("/srv/plain"), read_only=True),
    )


def test_ports_dependencies_and_aliases() -> None:
    """What is published to everybody is told from what is published to this machine."""
    app = model_of({
        "depends_on": {"redis": {}, "postgres": {"condition": "service_healthy"}},
        "networks": {"a": {"aliases": ["mail", "app"]}, "b": {"aliases": ["app", "archive"]}, "c": None},
        "ports": [
            {"target": 5000, "published": "8080", "host_ip": "127.0.0.1"}, {"target": 5001, "published": "5001"},
            {"target": "5002"},
        ],
    })  # fmt: skip

    assert app.depends_on == ("postgres", "redis")
    assert app.aliases == ("app", "archive", "mail")
    assert app.ports == (
        ComposePort(5000, "8080", "127.0.0.1"),
        ComposePort(5001, "5001", ""),
        ComposePort(5002, "", ""),
    )


def test_environment_files_come_from_where_compose_has_not_resolved_them() -> None:
    """Older and newer Compose write them as words, or with whether they may be missing."""
    model = parse_model('{"name": "mail", "services": {"a": {}, "b": {}}}')
    unresolved = {"services": {"a": {"env_file": ["/one", {"path": "/two", "required": False}, {"path": "/three"}]}}}

    found = with_env_files(model, json.dumps(unresolved))

    assert [each.env_files for each in found.services] == [
        (EnvFile(Path("/one")), EnvFile(Path("/two"), required=False), EnvFile(Path("/three"))),
        (),
    ]


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("COMPOSE_FILE=a.yml", {"COMPOSE_FILE": "a.yml"}),
        ("export COMPOSE_FILE = a.yml ", {"COMPOSE_FILE": "a.yml"}),
        ("COMPOSE_FILE='a b.yml'  # mine", {"COMPOSE_FILE": "a b.yml"}),
        ('COMPOSE_FILE="a.yml:b.yml"', {"COMPOSE_FILE": "a.yml:b.yml"}),
        ("A=x#y\nB=x #y", {"A": "x#y", "B": "x"}),
        ("A=\nB=''\n\n# C=1\n  D=1", {"A": "", "B": "", "D": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=b=c==", {"A": "b=c=="}),
        ("not a setting\n1A=x\n=x", {}),
        ("\ufeffCOMPOSE_PROJECT_NAME=mail", {"COMPOSE_PROJECT_NAME": "mail"}),
        ("", {}),
    ],
)
def test_settings_of_dot_env(text: str, settings: dict[str, str]) -> None:
    """Quotes, comments, line ends and an editor's mark at the beginning mean what they mean to Compose."""
    assert parse_dot_env(text) == settings


@pytest.mark.parametrize(
    ("names", "settings", "chosen"),
    [
        (["docker-compose.yml"], {}, ["docker-compose.yml"]),
        (["docker-compose.yml", "compose.yaml", "README"], {}, ["compose.yaml"]),
        (
            ["docker-compose.override.yml", "docker-compose.yml"],
            {},
            ["docker-compose.yml", "docker-compose.override.yml"],
        ),
        (["compose.yml", "compose.override.yaml", "compose.override.yml"], {}, ["compose.yml", "compose.override.yml"]),
        (["docker-compose.override.yml"], {}, []),
        (["stack.yml"], {}, []),
        (["docker-compose.yml"], {"COMPOSE_FILE": "b.yml:c/d.yml"}, ["b.yml", "c/d.yml"]),
        (["docker-compose.yml"], {"COMPOSE_FILE": "b.yml;c.yml", "COMPOSE_PATH_SEPARATOR": ";"}, ["b.yml", "c.yml"]),
        (["docker-compose.yml"], {"COMPOSE_FILE": ""}, ["docker-compose.yml"]),
    ],
)
def test_the_files_that_compose_takes(names: list[str], settings: dict[str, str], chosen: list[str]) -> None:
    """The first usual name and the first override; a choice in `.env` wins over both."""
    assert choose_files(names, settings) == chosen


@pytest.mark.parametrize(
    ("text", "may"),
    [
        (b"services: {app: {image: a, environment: [A=b]}}", False),
        (b"services: {app: {image: a, env_file: [b.env]}}", True),
        (b"include: [other.yaml]", True),
        (b"services: {app: {extends: {file: other.yaml, service: a}}}", True),
        (rb'services: {app: {"env\x5ffile": b.env}}', True),
        (b'services: {app: {"env_\\\nfile": b.env}}', True),
        ("services: {app: {env_file: b.env}}".encode("utf-16"), True),
        ("services: {app: {env_file: b.env}}".encode("utf-32-be"), True),
    ],
)
def test_a_file_that_may_name_env_files_is_told_from_one_that_cannot(text: bytes, may: bool) -> None:
    assert may_name_env_files(text) is may
