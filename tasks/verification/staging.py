"""A private stack for proving a restore: same images, no way out to any network, and gone afterwards.

It shares no project, container, volume, network, port or path with production. Its network is internal (no route out, no name server), it
publishes nothing, restarts nothing, and its mail accounts are disabled before its application may start.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tasks.adapters.archive.reader import CheckedArchive
from tasks.adapters.engine import containers, resources
from tasks.adapters.engine.compose import compose_up
from tasks.adapters.engine.labels import PROJECT_LABEL
from tasks.adapters.host.files import make_directory, remove_tree, write_atomically
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.state import read_json, state_subdirectory
from tasks.adapters.postgres import facts
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session
from tasks.core.errors import BackupError, Refused
from tasks.core.policy.limits import StagingLimits
from tasks.core.quoting import quoted
from tasks.core.stack.installation import Installation
from tasks.recovery.journalled import journalled
from tasks.restore.kept_list import forget_entries
from tasks.run.installations import discover, reread, wait_for_login
from tasks.verification.staging_model import staging_model

logger = logging.getLogger(__name__)

KIND = "staging"
PROJECT_PREFIX = "mailarchiver-staging-"
POSTGRES_START_SECONDS = 180.0
COMPOSE_SECONDS = 300.0
COMPOSE_FILE = "compose.yaml"
APPLICATION_STOP_SECONDS = 30


@contextmanager
def staging_installation(
    production: Installation, archive: CheckedArchive, limits: StagingLimits, *, postgres_image: str = ""
) -> Iterator[Installation]:
    """Give a staging installation with a running, empty PostgreSQL and an application that was never started; remove it afterwards.

    For an archive of a whole data directory PostgreSQL is not started either: its (empty) data directory waits for the
    archive's. The stack is built from the images that the backup was taken with, but for `postgres_image` where one is
    given: an upgrade's rehearsal. A journal removes it after a crash.
    Raise Refused where an image is missing.
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
        model = staging_model(
            production, archive, project, directory, limits, settings=settings, postgres_image=postgres_image
        )
        write_atomically(directory / COMPOSE_FILE, json.dumps(model, indent=1).encode())
        compose_up(directory, [directory / COMPOSE_FILE], project, timeout_seconds=COMPOSE_SECONDS, no_start=True)
        _refuse_a_way_out(project)
        staging = discover(directory, installation_id=f"{production.id}-staging", project=project)
        _refuse_anything_shared(staging, production)
        if archive.kind == "physical":
            yield staging
            return
        started = start_postgres(staging)
        make_tablespaces(started, archive)
        yield started


def change_application(staging: Installation, image_id: str) -> Installation:
    """Make staging's application anew from another image, in the same isolation; it is stopped before, and not started.

    Raise BackupError, with nothing started, where it would have a way out.
    """
    file, name = staging.directory / COMPOSE_FILE, staging.application.name
    containers.stop_container(staging.application.container_id, timeout_seconds=APPLICATION_STOP_SECONDS)
    model = read_json(file)
    if model is None:
        raise BackupError(f"{file} is gone", hint="is somebody clearing up the state directory?")
    application = model["services"][name]
    application["image"] = image_id
    # A container's environment is its image's too: what the former image set, the new one sets as it wants.
    former = resources.image_facts(staging.application.image_id).environment
    application["environment"] = {
        key: value for key, value in application["environment"].items() if value.replace("$$", "$") != former.get(key)
    }
    write_atomically(file, json.dumps(model, indent=1).encode())
    compose_up(
        staging.directory, [file], staging.project, [name], timeout_seconds=COMPOSE_SECONDS, no_start=True,
        with_dependencies=False, pull="never",
    )  # fmt: skip
    _refuse_a_way_out(staging.project)
    return discover(staging.directory, installation_id=staging.id, project=staging.project)


def server_settings(production: Installation, archive: CheckedArchive) -> Mapping[str, str]:
    """Give the settings of production's server that objects may depend on: as the archive says, else as they are now, if it runs."""
    if archive.manifest is not None and archive.manifest.database.server_settings:
        return archive.manifest.database.server_settings
    if production.postgres.state != "running":
        return {}
    with server_of(production) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
        return facts.server_settings(opened)


def start_postgres(staging: Installation) -> Installation:
    """Start a staging stack's PostgreSQL, wait until a login over TCP works, and give the stack as it is then.

    Raise BackupError, with the end of its log, where it gives up.
    """
    containers.start_container(staging.postgres.container_id)
    started = reread(staging)
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
        for name in set(wanted) - facts.tablespaces(opened):
            opened.execute(f"CREATE TABLESPACE {quoted(name)} LOCATION ''")


def settle(journal: Journal) -> str:
    """Remove the staging stack of a dead verification."""
    project = str(journal.body["project"])
    directory = state_subdirectory("staging") / project
    if str(directory) != str(journal.body["directory"]):
        raise Refused(
            f"{journal.body['directory']} is not where staging stacks are made ({directory}), and is not removed",
            hint="has the state directory been moved? remove that directory by hand, then this journal",
        )
    remove_staging(project, directory)
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
    forget_entries(directory)


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
