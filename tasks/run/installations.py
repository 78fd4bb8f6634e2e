"""Read an installation: once at the beginning of a run, and again where its containers were started since."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tasks.adapters.engine import containers
from tasks.adapters.host.journals import Journal
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import wait_until_ready
from tasks.adapters.stack.discovery import discover
from tasks.core.errors import BackupError, UsageError
from tasks.core.stack.installation import Installation, Service
from tasks.run.config import InstallationConfig
from tasks.step import step

__all__ = ["discover", "installation_of", "read_installation", "reread", "wait_for_login"]

LOOK_AGAIN_SECONDS = 1.0
LOG_LINES = 8


@step(name="read installation", run_name="read {config.id}")
def read_installation(config: InstallationConfig) -> Installation:
    """Read what Docker and the compose files say of an installation.

    Raise UsageError where its repository lies in what is backed up, or the other way round: a backup would hold the backups before it.
    """
    found = discover(config.directory, installation_id=config.id, project=config.project)
    _refuse_repository_in_data(found, config.repository)
    return replace(found, limits=config.service_limits)


def _refuse_repository_in_data(installation: Installation, repository: Path) -> None:
    place = Path(os.path.realpath(repository))
    for what, mount in (("the data", installation.data_mount), ("the data-protection keys", installation.keys_mount)):
        if mount is None or mount.host_path is None:
            continue
        data = Path(os.path.realpath(mount.host_path))
        if place.is_relative_to(data) or data.is_relative_to(place):
            raise UsageError(
                f"the repository {repository} and {what} in {data} lie in each other; what is backed up must not hold its backups",
                hint="give --repository, or the setting `repository`, a directory of its own, best on another disk",
            )


def reread(installation: Installation) -> Installation:
    """Look at an installation's containers again: states and addresses may have changed, and nothing else of it.

    Where one is gone, Compose has made another: then the whole installation is read anew.
    """
    now = {each.name: _as_it_is(each) for each in installation.services}
    found = {name: service for name, service in now.items() if service is not None}
    if len(found) < len(now):
        anew = discover(installation.directory, installation_id=installation.id, project=installation.project)
        return replace(anew, limits=installation.limits)
    return replace(
        installation,
        application=found[installation.application.name],
        postgres=found[installation.postgres.name],
        services=tuple(found.values()),
    )


def _as_it_is(service: Service) -> Service | None:
    if not service.container_id:
        return service
    container = containers.container(service.container_id)
    return None if container is None else replace(service, state=container.state, addresses=container.addresses)


def wait_for_login(
    read: Callable[[], Installation], *, timeout_seconds: float, database: str, application: bool = False
) -> Installation:
    """Wait until PostgreSQL takes a login over TCP, as superuser or application; give the installation as `read` found it.

    Raise BackupError where it has ended instead, refuses the login, or time is up; its message ends with the end of the server's log.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        current = read()
        try:
            with server_of(current) as server:
                if application:
                    login = current.database
                    server = replace(server, user=login.user, password=login.password, superuser=False)
                wait_until_ready(server, database, timeout_seconds=LOOK_AGAIN_SECONDS)
                return current
        except BackupError as error:
            found = containers.container(current.postgres.container_id)
            runs = found is not None and found.state in ("running", "restarting")
            if runs and error.transient and time.monotonic() < deadline:
                continue
            log = containers.logs(current.postgres.container_id, LOG_LINES).strip() if found else "(no container)"
            raise BackupError(f"{error.message}; its log ends: {log}", hint=error.hint) from error


def installation_of(journal: Journal) -> Installation:
    """Read the installation that a journal is about."""
    return discover(
        journal.installation_directory, installation_id=journal.installation_id, project=journal.body.get("project")
    )
