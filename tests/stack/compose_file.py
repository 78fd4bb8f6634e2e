"""Write a compose file like upstream's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

# Each question costs a tenth of a second of a core, and stacks live for minutes: asked again about a server that has answered
# already, the answer takes its time. (Asking often at the start alone, `start_interval`, is unknown to Docker 20.10.)
HEALTH = """pg_isready "$@" || exit
[ /tmp/healthy -nt "$PGDATA/postmaster.pid" ] && exec sleep 20
touch /tmp/healthy"""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a test's compose file says. The defaults are upstream's; the health check asks more often, to save time."""

    project: str
    port: int
    postgres_image: str
    application_image: str
    user: str = "mailuser"
    password: str = field(default="masterkey", repr=False)
    database: str = "MailArchiver"
    data_target: str = "/var/lib/postgresql/data"
    named_volumes: bool = False
    password_in_dotenv: bool = False
    health_interval: str = "1s"
    restart: str = "always"
    application_environment: Mapping[str, str] = field(default_factory=dict)
    postgres_environment: Mapping[str, str] = field(default_factory=dict)
    postgres_command: Sequence[str] = ()


def compose_text(layout: Layout) -> str:
    """Give the file's text: the application's environment as a list, PostgreSQL's as a map, as upstream writes them."""
    password = "${POSTGRES_PASSWORD}" if layout.password_in_dotenv else _literal(layout.password)
    # A password from .env is put into the connection string by Compose, unquoted: upstream's own way.
    in_string = password if layout.password_in_dotenv else _literal(_quoted(layout.password))
    connection = (
        f"Host=postgres;Database={_literal(_quoted(layout.database))};"
        f"Username={_literal(_quoted(layout.user))};Password={in_string};"
    )
    data, keys = (
        ("postgres-data", "data-protection-keys")
        if layout.named_volumes
        else ("./postgres-data", "./data-protection-keys")
    )
    application = {
        "image": layout.application_image,
        "restart": layout.restart,
        "environment": [
            f"ConnectionStrings__DefaultConnection={connection}",
            "Authentication__Enabled=true",
            "Authentication__Username=admin",
            "Authentication__Password=secure123!",
            *(f"{name}={_literal(value)}" for name, value in layout.application_environment.items()),
        ],
        "ports": [f"127.0.0.1:{layout.port}:5000"],
        "networks": ["postgres"],
        "volumes": [f"{keys}:/app/DataProtection-Keys"],
        "depends_on": {"postgres": {"condition": "service_healthy"}},
    }
    postgres: dict[str, Any] = {
        "image": layout.postgres_image,
        "restart": layout.restart,
        "environment": {
            "POSTGRES_DB": _literal(layout.database),
            "POSTGRES_USER": _literal(layout.user),
            "POSTGRES_PASSWORD": password,
            **{name: _literal(value) for name, value in layout.postgres_environment.items()},
        },
        "volumes": [f"{data}:{layout.data_target}"],
        "networks": ["postgres"],
        "healthcheck": {
            "test": [
                "CMD",
                "sh",
                "-c",
                _literal(HEALTH),
                "sh",
                "-U",
                _literal(layout.user),
                *_database_option(layout.database),
            ],
            "interval": layout.health_interval,
            "timeout": "30s",
            "retries": 30,
        },
    }
    if layout.postgres_command:
        postgres["command"] = [_literal(word) for word in layout.postgres_command]
    whole: dict[str, Any] = {
        "name": layout.project,
        "services": {"mailarchive-app": application, "postgres": postgres},
        "networks": {"postgres": {}},
    }
    if layout.named_volumes:
        whole["volumes"] = {"postgres-data": {}, "data-protection-keys": {}}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=1000)


def dotenv_text(layout: Layout) -> str:
    """Give the text of the `.env` beside it, with every character of the password taken literally."""
    return "POSTGRES_PASSWORD='" + layout.password.replace("\\", "\\\\").replace("'", "\\'") + "'\n"


def _literal(value: str) -> str:
    return value.replace("$", "$$")


def _database_option(name: str) -> list[str]:
    # PostgreSQL's programs take a name with an equals sign for a whole connection string.
    return [] if "=" in name else ["-d", _literal(name)]


def _quoted(value: str) -> str:
    # ADO.NET connection strings: quote what would end or begin a value.
    if not value or any(character in value for character in ";'\"=") or value != value.strip():
        return '"' + value.replace('"', '""') + '"'
    return value
