"""Set up a stack on a host that has nothing but Docker, the images and an archive."""

from __future__ import annotations

import logging
from pathlib import Path

from tasks.adapters.archive.reader import CheckedArchive
from tasks.adapters.engine import containers
from tasks.adapters.engine.compose import compose_config, compose_up, env_files_beside
from tasks.adapters.engine.labels import PROJECT_LABEL
from tasks.adapters.host.files import make_mounted_directory
from tasks.core.errors import Refused
from tasks.restore.config_files import write_configuration
from tasks.restore.origin import installation_of_archive
from tasks.run.config import InstallationConfig, config_at
from tasks.step import step

logger = logging.getLogger(__name__)

COMPOSE_SECONDS = 600.0


@step(name="set up fresh host", retries=0)
def set_up_fresh_host(
    archive: CheckedArchive, directory: Path, repository: Path, *, project: str | None, trusted_keys: tuple[str, ...]
) -> InstallationConfig:
    """Write the archive's configuration into an empty directory and create its containers without starting them; return the work.

    Raise Refused where the project's name is taken by containers of another directory (Compose would replace those), and where a path that
    the stack mounts lies outside the directory and holds something already.
    """
    name = project or (archive.manifest.project if archive.manifest else directory.name)
    taken = [each.name for each in containers.containers(label={PROJECT_LABEL: name})]
    if taken:
        raise Refused(
            f"the compose project {name!r} has containers on this machine already ({', '.join(taken)})",
            hint="give the new stack a name of its own: --project NAME",
        )
    files = write_configuration(archive, directory)
    # As Compose itself would, were it called in the directory: relative paths start where the first compose file is.
    base, env_files = files[0].parent, env_files_beside(directory, files)
    for service in compose_config(base, files, name, env_files=env_files).services:
        for mount in service.mounts:
            place = Path(mount.source)
            if mount.kind == "bind" and not place.is_relative_to(directory) and place.is_dir() and any(place.iterdir()):
                raise Refused(
                    f"the archive's compose file mounts {place}, which lies outside {directory} and is not empty",
                    hint="edit the compose file that was written, or restore on another machine",
                )
            if mount.kind == "bind" and place.is_relative_to(directory) and not place.exists() and not place.suffix:
                make_mounted_directory(place)
    compose_up(base, files, name, timeout_seconds=COMPOSE_SECONDS, no_start=True, env_files=env_files)
    return config_at(
        installation_of_archive(archive), directory, repository, project=name, fresh=True, trusted_keys=trusted_keys
    )
