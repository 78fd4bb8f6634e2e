"""What of the host is to be backed up, as it is now: found before anything begins, and what is missing is named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.engine.containers import Container, containers
from tasks.adapters.engine.labels import ONE_OFF_LABEL, PROJECT_LABEL
from tasks.adapters.engine.resources import image_facts
from tasks.adapters.engine.saved_images import image_bytes
from tasks.adapters.engine.volumes import User, Volume, find_volume, users_of
from tasks.adapters.machine.volume_tar import readable_here
from tasks.adapters.stack.project_files import files_of_project
from tasks.core.archive.system_contents import HostImage, HostProject
from tasks.core.errors import BackupError, Refused, UsageError
from tasks.core.machine.paths import image_member
from tasks.core.policy.host_settings import Host
from tasks.core.stack.installation import Installation
from tasks.machine.helper import fitting_image
from tasks.run.config import InstallationConfig
from tasks.step import step


@dataclass(frozen=True, slots=True)
class SeenVolume:
    """A volume that is to be backed up, with who uses it."""

    volume: Volume
    users: tuple[User, ...]

    @property
    def writers(self) -> list[str]:
        """Name the containers that run and may write to it."""
        return [each.container for each in self.users if each.runs and each.writes]


@dataclass(frozen=True, slots=True)
class SeenHost:
    """What is to be backed up of the host; `missing` says in words what is not there at all, `notes` which files are not."""

    volumes: tuple[SeenVolume, ...]
    projects: tuple[HostProject, ...]
    images: tuple[HostImage, ...]
    paths: tuple[Path, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    helper_image: str


def host_settings(config: InstallationConfig) -> Host:
    """Give what is wanted of the host; raise UsageError where the settings do not say."""
    if config.settings.host is None:
        raise UsageError(
            f"the settings of {config.id} name nothing of the host to back up",
            hint="add the section `host` with volumes, projects or paths: see `mailarchiver-backup init`",
        )
    return config.settings.host


def see_host(wanted: Host, stack: Installation) -> SeenHost:
    """Look at what the settings name; touch nothing."""
    missing: list[str] = []
    notes: list[str] = []
    volumes = [(name, find_volume(name)) for name in wanted.volumes]
    missing += [f"there is no volume {name}" for name, found in volumes if found is None]
    there = [found for _, found in volumes if found is not None]
    users = users_of({each.name for each in there})
    every = containers(label={PROJECT_LABEL: ""}) if wanted.projects else []
    projects, images = [], {}
    for name in wanted.projects:
        own = [
            each for each in every if each.labels[PROJECT_LABEL] == name and each.labels.get(ONE_OFF_LABEL) != "True"
        ]
        if not own:
            missing.append(f"there is no compose project {name}: no container carries its name")
            continue
        project, lost = files_of_project(name, own)
        projects.append(project)
        notes += lost
        images.update({each.image_id: each for each in own})
    notes += [f"there is no {path}" for path in wanted.paths if not os.path.lexists(path)]
    reached = all(readable_here(each.place) for each in there)
    helper = "" if reached else _helper_image(stack, every)
    if not reached and not helper:
        missing.append("volumes cannot be read here, and no image of this host has GNU tar to read them in a container")
    found_images = []
    for each in images.values():
        try:
            found_images.append(_image(each, saved=wanted.images == "saved"))
        except BackupError as error:  # it was removed by force under its container
            notes.append(f"image {each.image} of {each.name}: {error.message}")
    return SeenHost(
        tuple(SeenVolume(each, users[each.name]) for each in there),
        tuple(projects),
        tuple(found_images),
        tuple(each for each in wanted.paths if os.path.lexists(each)),
        tuple(missing),
        tuple(notes),
        helper,
    )


@step(name="look at the host")
def look_at_host(wanted: Host, stack: Installation) -> SeenHost:
    """See what is to be backed up; raise Refused where something is missing, or is the database at work."""
    seen = see_host(wanted, stack)
    if seen.missing:
        raise Refused(
            f"what the section `host` names is not all there: {'; '.join(seen.missing)}",
            hint="is it spelled right? `docker volume ls` and `docker compose ls` name what is there; take out what is gone",
        )
    if obstacle := database_obstacle(seen, stack):
        raise Refused(
            obstacle, hint="`mailarchiver-backup backup online` copies it while it runs; or stop its containers"
        )
    return seen


def database_obstacle(seen: SeenHost, stack: Installation) -> str:
    """Say that a volume or a path holds the database at work, of which a plain copy would be none; "" where none does."""
    data = stack.data_mount
    for each in seen.volumes:
        is_data = data.kind == "volume" and data.source == each.volume.name
        running = [user.container for user in each.users if user.runs]
        if running and (is_data or _overlap(each.volume.place, stack.data_directory)):
            return (
                f"the volume {each.volume.name} holds the database of {stack.id}, and {', '.join(running)} runs on it"
            )
    if stack.postgres.state in ("running", "paused", "restarting"):
        for path in seen.paths:
            if _overlap(path, stack.data_directory):
                return f"{path} holds the database of {stack.id}, which runs on it, or lies in it"
    return ""


def _overlap(one: Path | None, other: Path | None) -> bool:
    """Tell whether one of two places lies in the other, or they are the same."""
    if one is None or other is None:
        return False
    first, second = (Path(os.path.realpath(each)) for each in (one, other))
    return first.is_relative_to(second) or second.is_relative_to(first)


def image_sizes(images: Sequence[HostImage]) -> int:
    """Give how many bytes the images that are to be saved have."""
    return sum(image_bytes(each.image_id) for each in images if each.member)


def _helper_image(stack: Installation, every: Sequence[Container]) -> str:
    candidates = [stack.postgres.image_id, stack.application.image_id, *(each.image_id for each in every)]
    return fitting_image(candidates, installation_id=stack.id, directory=stack.directory)


def _image(container: Container, *, saved: bool) -> HostImage:
    facts = image_facts(container.image_id)
    # A name that has gone over to a newer image since the container was made is not this one's any more.
    name = container.image if container.image in facts.names else next(iter(facts.names), facts.image_id)
    member = image_member(facts.image_id) if saved else ""
    return HostImage(name=name, image_id=facts.image_id, digests=list(facts.digests), member=member)
