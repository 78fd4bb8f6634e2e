"""What an installation of Mail Archiver is: a value, read once from Docker and the compose files.

Production is one; a staging stack is just another. Everything that backs up or restores takes this value.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tasks.core.policy.limits import ServiceLimits

ServiceState = Literal["running", "paused", "restarting", "exited", "created", "dead", "removing", "absent"]


@dataclass(frozen=True, slots=True)
class Mount:
    """One place of a container's file system that lives outside it.

    `source` is a host path for a bind mount and the volume's name for a volume. `host_path` is where the
    host sees it (for a volume: its mountpoint), or None where only Docker can reach it.
    """

    kind: Literal["bind", "volume", "tmpfs"]
    source: str
    target: str
    host_path: Path | None
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """One compose service with the container that runs (or would run) it.

    `state` is "absent" and `container_id` "" where no container exists. `image_id` is the image the container
    really uses (`sha256:...`), `image` the name it was asked for by, `image_digest` the registry's digest where known.
    `addresses` are the container's IP addresses, empty unless running.
    """

    name: str
    container_id: str
    container_name: str
    state: ServiceState
    image: str
    image_id: str
    image_digest: str | None
    restart_policy: str
    environment: Mapping[str, str] = field(repr=False)
    mounts: tuple[Mount, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Database:
    """How the application's database is called. `superuser` is POSTGRES_USER, the role the image created.

    `user` and `password` are what the *application* logs in with (its connection string); they may equal the superuser's.
    """

    name: str
    superuser: str
    superuser_password: str = field(repr=False)
    user: str
    password: str = field(repr=False)
    port: int = 5432


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that belongs to the configuration: where it is, and its relative name in an archive."""

    path: Path
    archive_name: str


@dataclass(frozen=True, slots=True)
class Installation:
    """A Mail Archiver stack under Docker Compose.

    `id` names it in settings, archives and locks. `compose_files` are absolute, in Compose's order. `pgdata` is PGDATA
    as the container sees it; `data_mount` is the mount that holds it (its target equals or is a parent of `pgdata`).
    `services` are all services of the project in start order (a service comes after those it depends on), the
    application's and PostgreSQL's among them.
    """

    id: str
    directory: Path
    project: str
    compose_files: tuple[Path, ...]
    application: Service
    postgres: Service
    services: tuple[Service, ...]
    database: Database
    pgdata: str
    data_mount: Mount
    keys_mount: Mount | None
    config_files: tuple[ConfigFile, ...]
    application_port: int = 5000
    limits: ServiceLimits = field(default_factory=ServiceLimits)

    @property
    def data_directory(self) -> Path | None:
        """Give the place of the data directory on this host; None where only Docker can reach it. It need not exist."""
        host_path = self.data_mount.host_path
        return host_path and host_path / Path(self.pgdata).relative_to(self.data_mount.target)

    @property
    def keys_directory(self) -> Path | None:
        """Give the place of the data-protection keys on this host; None where there is none, or only Docker can reach it."""
        return self.keys_mount.host_path if self.keys_mount is not None else None


def command_to_run(installation: Installation, service: Service) -> str:
    """Give the command by which an operator gets a service to run again; Compose starts only what has a container."""
    verbs = {"paused": "unpause", "absent": "up --detach"}
    compose = f"docker compose -p {installation.project} {verbs.get(service.state, 'start')} {service.name}"
    return compose if service.state != "absent" else f"cd {shlex.quote(str(installation.directory))} && {compose}"


def left_down(installation: Installation) -> tuple[str, ...]:
    """Say that the application did not run before and was left so, and how to start it; nothing for one that ran."""
    application = installation.application
    if application.state in ("running", "restarting"):
        return ()
    command = command_to_run(installation, application)
    return (f"{application.name} was {application.state} before the restore and was left so; to start it: {command}",)
