"""Read an installation from Docker's own truth, and from the compose files where nothing runs.

Containers are found by the labels Compose gives them, by directory and never by the project's name: two directories of the same
name stay apart. `docker compose config` fills in what has no container.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tasks.adapters.engine import resources
from tasks.adapters.engine.container_files import read_container_file
from tasks.adapters.engine.containers import Container
from tasks.adapters.engine.labels import DEPENDS_ON_LABEL
from tasks.adapters.stack.config_files import find_configuration
from tasks.adapters.stack.find_stack import Stack, find_stack
from tasks.core.errors import Refused
from tasks.core.stack import identify as decide
from tasks.core.stack.compose_model import ComposeService
from tasks.core.stack.connection_string import ConnectionString, parse_connection_string
from tasks.core.stack.installation import ConfigFile, Database, Installation, Mount, Service

logger = logging.getLogger(__name__)


def discover(directory: Path, *, installation_id: str | None = None, project: str | None = None) -> Installation:
    """Return the installation that lives in a directory, running or not.

    Its id is the project's name unless one is given. Raise Refused, in one sentence with a hint, where Docker cannot be reached, where
    directory or compose file are missing, and where anything is ambiguous.
    """
    stack = find_stack(directory, project=project)
    services = _services(stack)
    candidates = [_candidate(stack, each) for each in services.values()]

    application = services[decide.choose_application(candidates, project=stack.project).name]
    connection = _connection(application)
    chosen = next(each for each in candidates if each.name == application.name)
    postgres = services[decide.choose_postgres(candidates, chosen, connection, project=stack.project).name]
    for service in (application, postgres):
        _refuse_several(stack, service.name)

    pgdata = decide.pgdata_of(postgres.environment, postgres.image, postgres.mounts)
    keys_mount = decide.keys_mount_of(application.mounts)
    configuration = find_configuration(
        stack.directory,
        stack.compose_files,
        stack.env_files,
        stack.model,
        (application, postgres),
        data=[pgdata, *([keys_mount.target] if keys_mount else [])],
    )
    for missing in configuration.missing:
        logger.warning("Configuration that cannot be read, and so not be backed up: %s", missing)
    names = decide.archive_names(configuration.files, stack.directory)
    return Installation(
        id=installation_id or stack.project,
        directory=stack.directory,
        project=stack.project,
        compose_files=stack.compose_files,
        application=application,
        postgres=postgres,
        services=tuple(services.values()),
        database=_database(postgres, connection),
        pgdata=pgdata,
        data_mount=_data_mount(postgres, pgdata),
        keys_mount=keys_mount,
        config_files=tuple(ConfigFile(path, name) for path, name in names.items()),
        application_port=decide.application_port_of(application.environment, _published(stack, application.name)),
    )


# --- Services --------------------------------------------------------------------------------------------------------


def _services(stack: Stack) -> dict[str, Service]:
    """Return the project's services in start order: those with containers, and those only in the files."""
    described = {each.name: each for each in stack.model.services} if stack.model else {}
    needs = {name: each.depends_on for name, each in described.items()}
    for name, several in stack.containers.items():
        needs[name] = decide.depends_on_label(several[0].labels.get(DEPENDS_ON_LABEL, "")) or needs.get(name, ())
    return {
        name: _service(name, _chosen(stack.containers[name]), described.get(name))
        if name in stack.containers
        else _absent(described[name], stack.project)
        for name in decide.start_order(needs)
    }


def _chosen(several: Sequence[Container]) -> Container:
    """Choose among a service's containers: one that runs, else the newest (a recreation may have left the older)."""
    return max(several, key=lambda each: (each.state in ("running", "paused", "restarting"), each.created_at))


def _refuse_several(stack: Stack, service: str) -> None:
    running = [each for each in stack.containers.get(service, ()) if each.state in ("running", "paused", "restarting")]
    if len(running) > 1:
        raise Refused(
            f"service {service} of project {stack.project} runs in more than one container: "
            f"{', '.join(each.name for each in running)}",
            hint=f"scale it to one: docker compose up -d --scale {service}=1",
        )


def _service(name: str, container: Container, described: ComposeService | None) -> Service:
    image = container.image
    if image.startswith("sha256:") and described is not None:
        image = described.image
    return Service(
        name=name,
        container_id=container.id,
        container_name=container.name,
        state=container.state,
        image=image,
        image_id=container.image_id,
        image_digest=_digest(container.image_id, image),
        restart_policy=container.restart_policy,
        environment=container.environment,
        mounts=container.mounts,
        addresses=container.addresses,
    )


def _absent(described: ComposeService, project: str) -> Service:
    """Describe a service that has no container, with what its image would bring where that is on this host."""
    image_id, inherited = "", {}
    if resources.image_exists(described.image):
        facts = resources.image_facts(described.image)
        image_id, inherited = facts.image_id, dict(facts.environment)
    return Service(
        name=described.name,
        container_id="",
        container_name=described.container_name or f"{project}-{described.name}-1",
        state="absent",
        image=described.image,
        image_id=image_id,
        image_digest=_digest(image_id, described.image) if image_id else None,
        restart_policy=described.restart,
        environment={**inherited, **described.environment},
        mounts=tuple(_with_mountpoint(mount) for mount in described.mounts),
        addresses=(),
    )


def _with_mountpoint(mount: Mount) -> Mount:
    if mount.kind != "volume" or not mount.source:
        return mount
    return replace(mount, host_path=resources.volume_mountpoint(mount.source))


def _digest(image_id: str, name: str) -> str | None:
    if not resources.image_exists(image_id):
        return None
    return decide.digest_of(name, resources.image_facts(image_id).digests)


def _candidate(stack: Stack, service: Service) -> decide.Candidate:
    hosts = {service.name, service.container_name, *service.addresses}
    for container in stack.containers.get(service.name, ()):
        hosts |= {container.hostname, container.id[:12], *container.aliases}
    described = stack.model.service(service.name) if stack.model else None
    if described is not None and service.state == "absent":
        hosts |= {described.hostname, *described.aliases}
    return decide.Candidate(service.name, service.image, frozenset(hosts - {""}), service.environment, service.mounts)


def _published(stack: Stack, service: str) -> list[int]:
    containers = stack.containers.get(service, ())
    if containers:
        return [port.container_port for each in containers for port in each.published_ports]
    described = stack.model.service(service) if stack.model else None
    return [port.target for port in described.ports] if described else []


# --- Database --------------------------------------------------------------------------------------------------------


def _connection(application: Service) -> ConnectionString | None:
    """Return what the application's connection string says: from its environment, else from its settings files."""
    source = f"service {application.name}"
    text = decide.connection_setting(application.environment)
    for path in decide.SETTINGS_FILES:
        if text is not None:
            break
        content = read_container_file(application, path)
        if content is not None:
            source = f"{path} of service {application.name}"
            text = decide.connection_in_settings(content.decode(errors="replace"), source=source)
    return parse_connection_string(text, source=source) if text is not None else None


def _database(postgres: Service, connection: ConnectionString | None) -> Database:
    said = connection or ConnectionString()
    superuser = _image_setting(postgres, "POSTGRES_USER") or "postgres"
    password = _image_setting(postgres, "POSTGRES_PASSWORD")
    user = said.user or superuser
    # Npgsql itself falls back to the user's name, whatever POSTGRES_DB made.
    name = said.database or said.user or _image_setting(postgres, "POSTGRES_DB") or superuser
    return Database(
        name=name,
        superuser=superuser,
        superuser_password=password,
        user=user,
        password=said.password or (password if user == superuser else ""),
        port=said.port or 5432,
    )


def _image_setting(postgres: Service, name: str) -> str:
    """Return a setting of the official image as its entrypoint reads it: the variable, or the file that NAME_FILE names."""
    value = postgres.environment.get(name, "")
    path = postgres.environment.get(f"{name}_FILE", "")
    if value or not path:
        return value
    content = read_container_file(postgres, path)
    if content is None:
        logger.warning("%s of service %s names %s, which cannot be read", f"{name}_FILE", postgres.name, path)
        return ""
    # The entrypoint's $(< file) drops the line ends at the end.
    return content.decode(errors="replace").rstrip("\n")


def _data_mount(postgres: Service, pgdata: str) -> Mount:
    found = decide.mount_holding(pgdata, postgres.mounts)
    if found is not None:
        return found
    if postgres.state == "absent":
        # The image declares a volume there: Docker will make one without a name.
        return Mount("volume", "", pgdata, None)
    raise Refused(
        f"the database's files ({pgdata} in container {postgres.container_name}) lie on no mount: "
        "they would go away with the container",
        hint="mount a directory or a named volume there",
    )


def configuration_problems(installation: Installation) -> tuple[str, list[str]]:
    """Return why Compose does not understand the files ("" where it does), and what of the configuration cannot be read."""
    stack = find_stack(installation.directory, project=installation.project)
    keys: Iterable[Mount] = (installation.keys_mount,) if installation.keys_mount else ()
    found = find_configuration(
        stack.directory,
        stack.compose_files,
        stack.env_files,
        stack.model,
        (installation.application, installation.postgres),
        data=[installation.pgdata, *(mount.target for mount in keys)],
    )
    warnings = list(stack.model.warnings) if stack.model else []
    return stack.model_error, [*found.missing, *warnings]
