"""A private stack for proving a restore: same images, no way out to any network, and gone afterwards.

It shares no project, container, volume, network, port or path with production. Its network is internal (no route out, no name server), it
publishes nothing, restarts nothing, and its mail accounts are disabled before its application may start.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.adapters.archive.extraction import extract
from tasks.adapters.archive.reader import CheckedArchive
from tasks.adapters.engine import containers, resources
from tasks.adapters.engine.compose import compose_up
from tasks.adapters.engine.labels import PROJECT_LABEL, STAGING_LABEL
from tasks.adapters.host.files import make_directory, remove_tree, write_atomically
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.state import state_subdirectory
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.session import SQL_ASCII, server_of, session
from tasks.core.archive.manifest import ImageFacts
from tasks.core.errors import BackupError, Refused
from tasks.core.policy.limits import StagingLimits
from tasks.core.quoting import quoted
from tasks.core.stack.installation import Installation, Service
from tasks.core.stack.server_settings import staging_settings
from tasks.recovery.journalled import journalled
from tasks.run.installations import discover, wait_for_login

logger = logging.getLogger(__name__)

KIND = "staging"
PROJECT_PREFIX = "mailarchiver-staging-"
POSTGRES_START_SECONDS = 180.0
COMPOSE_SECONDS = 300.0
PGDATA = "pgdata"
MAINTENANCE_DATABASE = "postgres"
# Nobody's data depend on this server surviving a power cut, and it lives for minutes.
FAST_AND_LOOSE = (
    "fsync=off", "full_page_writes=off", "synchronous_commit=off", "wal_level=minimal", "max_wal_senders=0", "archive_mode=off",
    "max_wal_size=4GB", "checkpoint_timeout=30min", "autovacuum=off",
)  # fmt: skip


@contextmanager
def staging_installation(
    production: Installation, archive: CheckedArchive, limits: StagingLimits
) -> Iterator[Installation]:
    """Give a staging installation with a running, empty PostgreSQL and an application that was never started; remove it afterwards.

    For an archive of a whole data directory PostgreSQL is not started either: its (empty) data directory waits for the archive's. The stack is
    built from the images that the backup was taken with. A journal removes it after a crash. Raise Refused where an image is missing.
    """
    project = f"{PROJECT_PREFIX}{production.id}-{secrets.token_hex(4)}"
    directory = state_subdirectory("staging") / project
    journal = open_journal(
        KIND,
        {"project": project, "directory": str(directory)},
        installation_id=production.id,
        installation_directory=production.directory,
    )
    with journalled(journal, lambda: remove_staging(project, directory)):
        make_directory(directory)
        settings = server_settings(production, archive)
        model = staging_model(production, archive, project, directory, limits, settings=settings)
        write_atomically(directory / "compose.yaml", json.dumps(model, indent=1).encode())
        compose_up(directory, [directory / "compose.yaml"], project, timeout_seconds=COMPOSE_SECONDS, no_start=True)
        _refuse_a_way_out(project)
        staging = discover(directory, installation_id=f"{production.id}-staging", project=project)
        _refuse_anything_shared(staging, production)
        if archive.kind == "physical":
            yield staging
            return
        started = start_postgres(staging)
        make_tablespaces(started, archive)
        yield started


def server_settings(production: Installation, archive: CheckedArchive) -> Mapping[str, str]:
    """Give the settings of production's server that objects may depend on: as the archive says, else as they are now, if it runs."""
    if archive.manifest is not None and archive.manifest.database.server_settings:
        return archive.manifest.database.server_settings
    if production.postgres.state != "running":
        return {}
    with server_of(production) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
        return databases.server_settings(opened)


def start_postgres(staging: Installation) -> Installation:
    """Start a staging stack's PostgreSQL, wait until a login over TCP works, and give the stack as it is then.

    Raise BackupError, with the end of its log, where it gives up.
    """
    containers.start_container(staging.postgres.container_id)
    started = discover(staging.directory, installation_id=staging.id, project=staging.project)
    try:
        return wait_for_login(lambda: started, timeout_seconds=POSTGRES_START_SECONDS, database=MAINTENANCE_DATABASE)
    except BackupError as error:
        raise BackupError(
            f"staging's PostgreSQL does not start: {error.message}",
            hint="it runs production's image with production's settings of its server; does that image lack a library now?",
        ) from error


def make_tablespaces(staging: Installation, archive: CheckedArchive) -> None:
    """Make the tablespaces that the backup's objects lie in, inside staging's own data directory; safe to repeat.

    A server too old for such ones has none, and everything lies in the default one.
    """
    wanted = archive.manifest.database.tablespaces if archive.manifest else []
    if not wanted:
        return
    with server_of(staging) as server, session(server, MAINTENANCE_DATABASE, purpose="tablespaces") as opened:
        try:
            opened.execute("SET allow_in_place_tablespaces = on")
        except BackupError as error:
            logger.info("Everything lies in the default tablespace on staging: %s", error.message)
            return
        for name in set(wanted) - databases.tablespaces(opened):
            opened.execute(f"CREATE TABLESPACE {quoted(name)} LOCATION ''")


def settle(journal: Journal) -> str:
    """Remove the staging stack of a dead verification."""
    project = str(journal.body["project"])
    remove_staging(project, Path(str(journal.body["directory"])))
    return f"removed the staging stack {project}"


def remove_staging(project: str, directory: Path) -> None:
    """Remove a staging stack with all it has; refuse anything that is not one. Already gone is success."""
    if not project.startswith(PROJECT_PREFIX) or directory.name != project:
        raise Refused(f"{project} is no staging stack of ours and is not removed")
    ours = {PROJECT_LABEL: project}
    for container in containers.containers(label=ours):
        containers.remove_container(container.id, force=True)
    for network in resources.networks(label=ours):
        resources.remove_network(network)
    for volume in resources.volumes(label=ours):
        resources.remove_volume(volume)
    remove_tree(directory)


def staging_model(
    production: Installation,
    archive: CheckedArchive,
    project: str,
    directory: Path,
    limits: StagingLimits,
    *,
    settings: Mapping[str, str],
) -> dict[str, Any]:
    """Build the compose model of a staging stack and put the archive's configuration files that it mounts into `directory`.

    `settings` are those of production's server that objects may depend on.
    """
    password = secrets.token_urlsafe(24)
    superuser = archive.manifest.superuser if archive.manifest else production.database.superuser
    database = archive.manifest.database.name if archive.manifest else production.database.name
    connection = f'Host={production.postgres.name};Port=5432;Database={_quoted(database)};Username={_quoted(superuser)};Password="{password}"'
    common: dict[str, Any] = {
        "restart": "no",
        "networks": ["staging"],
        "dns": ["127.0.0.1"],  # Docker would otherwise ask the host's name servers, even from an internal network
        "labels": {STAGING_LABEL: production.id},
        "security_opt": ["no-new-privileges:true"],
    }
    if limits.memory_bytes:
        common["mem_limit"] = limits.memory_bytes
    keys = directory / "keys"
    make_directory(keys)
    postgres = {
        **common,
        "image": _image(archive, production.postgres),
        "environment": {
            "POSTGRES_USER": superuser,
            "POSTGRES_PASSWORD": password,
            "POSTGRES_DB": database,
            "PGDATA": production.pgdata,
            **_initdb_arguments(archive),
        },
        "shm_size": "256m",
    }
    if archive.kind == "physical":
        data = directory / "data"
        make_directory(data / PGDATA)
        postgres["volumes"] = [{"type": "bind", "source": str(data / PGDATA), "target": production.pgdata}]
        postgres["command"] = staging_settings(settings)
    else:
        postgres["command"] = staging_settings(settings, FAST_AND_LOOSE)
        postgres["volumes"] = [f"data:{production.data_mount.target}"]
    application = {
        **common,
        "image": _image(archive, production.application),
        "environment": {**production.application.environment, "ConnectionStrings__DefaultConnection": connection},
        "volumes": [
            {
                "type": "bind",
                "source": str(keys),
                "target": production.keys_mount.target if production.keys_mount else "/app/DataProtection-Keys",
            },
            *_configuration_mounts(production, archive, directory),
        ],
        "depends_on": [production.postgres.name],
    }
    model: dict[str, Any] = {
        "name": project,
        "services": {production.postgres.name: postgres, production.application.name: application},
        "networks": {"staging": {"internal": True, "labels": {STAGING_LABEL: production.id}}},
    }
    if archive.kind != "physical":
        model["volumes"] = {"data": {"labels": {STAGING_LABEL: production.id}}}
    escaped: dict[str, Any] = _without_interpolation(model)
    return escaped


def _configuration_mounts(production: Installation, archive: CheckedArchive, directory: Path) -> list[dict[str, Any]]:
    """Mount the archive's own copies of what production mounts into its application: appsettings.json, directories of certificates."""
    members = {member.name for member in archive.members}
    mounts: list[dict[str, Any]] = []
    for mount in production.application.mounts:
        if mount.kind != "bind" or mount.host_path is None:
            continue
        # Configuration files are known by their real directory, too.
        source = Path(os.path.realpath(mount.host_path.parent)) / mount.host_path.name
        held = {
            file.archive_name: file.path.relative_to(source)
            for file in production.config_files
            if file.path.is_relative_to(source) and file.archive_name in members
        }
        if not held:
            continue
        place = directory / "configuration" / str(len(mounts))
        extract(archive, list(held), place, keep_owners=os.geteuid() == 0)
        for inner in place.rglob("*"):
            if inner.is_dir():  # made by us for the way; the application may be another user
                inner.chmod(0o755)
        name, inside = next(iter(held.items()))
        root = Path(*(place / name).parts[: len((place / name).parts) - len(inside.parts)])
        mounts.append({"type": "bind", "source": str(root), "target": mount.target, "read_only": True})
    return mounts


def _initdb_arguments(archive: CheckedArchive) -> dict[str, str]:
    """Make a cluster in SQL_ASCII for a database in SQL_ASCII: names of roles, which are the cluster's, may be bytes of any kind."""
    if archive.manifest is None or archive.manifest.database.encoding != SQL_ASCII:
        return {}
    return {"POSTGRES_INITDB_ARGS": f"--encoding={SQL_ASCII} --locale=C"}


def _image(archive: CheckedArchive, service: Service) -> str:
    """Choose the image that the backup was taken with, by id, digest or name; for a legacy archive, the one in use."""
    recorded = archive.manifest.images if archive.manifest else []
    facts = next((image for image in recorded if image.service == service.name), None) or ImageFacts(
        service=service.name, image=service.image, image_id=service.image_id, digest=service.image_digest
    )
    for reference in (facts.image_id, facts.digest, facts.image):
        if reference and resources.image_exists(reference):
            return reference
    raise Refused(
        f"the image {facts.image} ({facts.digest or facts.image_id}) that the backup was taken with is not on this machine",
        hint=f"docker pull {facts.digest or facts.image}",
    )


def _refuse_a_way_out(project: str) -> None:
    networks = resources.networks(label={PROJECT_LABEL: project})
    if not networks or not all(resources.network_is_internal(name) for name in networks):
        raise BackupError(f"the staging network of {project} is not internal; nothing was started on it")
    for container in containers.containers(label={PROJECT_LABEL: project}):
        if not set(container.networks) <= set(networks):
            raise BackupError(f"{container.name} is in a network beyond the staging network; nothing was started")


def _refuse_anything_shared(staging: Installation, production: Installation) -> None:
    theirs = {mount.source for service in production.services for mount in service.mounts}
    ours = {mount.source for service in staging.services for mount in service.mounts}
    shared = sorted(theirs & ours)
    if staging.project == production.project or shared:
        raise BackupError(
            f"staging would share {', '.join(shared) or staging.project} with production; nothing was started"
        )


def _quoted(value: str) -> str:
    """Quote a value of an ADO.NET connection string."""
    return '"' + value.replace('"', '""') + '"'


def _without_interpolation(value: Any) -> Any:
    """Double every dollar sign, so that Compose takes names and passwords as they are."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _without_interpolation(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_interpolation(inner) for inner in value]
    return value
