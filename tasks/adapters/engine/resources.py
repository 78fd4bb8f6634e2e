"""Images, networks and volumes of the engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors

from tasks.adapters.engine.client import api_client, engine_is_local, in_our_words
from tasks.core.errors import BackupError, Refused

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image as it lies on this host. `digests` are `name@sha256:...`, known only for images from a registry."""

    image_id: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    architecture: str
    operating_system: str
    environment: Mapping[str, str]
    user: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str | None:
        """Give the registry's digest where one is known."""
        return self.digests[0].rpartition("@")[2] if self.digests else None


def label_filter(label: Mapping[str, str] | None) -> list[str]:
    return [f"{key}={value}" if value else key for key, value in (label or {}).items()]


def image_facts(image_id: str) -> LocalImage:
    """Return what is known of an image on this host, by id or name; raise BackupError where there is none."""
    with in_our_words(f"look at image {image_id}"):
        facts = api_client().inspect_image(image_id)
    config = facts.get("Config") or {}
    return LocalImage(
        image_id=facts["Id"],
        names=tuple(facts.get("RepoTags") or ()),
        digests=tuple(facts.get("RepoDigests") or ()),
        architecture=facts.get("Architecture") or "",
        operating_system=facts.get("Os") or "",
        environment=environment_of(config),
        user=config.get("User") or "",
        labels=dict(config.get("Labels") or {}),
    )


def local_images(limit: int) -> list[str]:
    """List the ids of images that have a name on this host, the newest first, so many at the most."""
    with in_our_words("list images"):
        found = [each for each in api_client().images() if each.get("RepoTags")]
    return [each["Id"] for each in sorted(found, key=lambda each: each.get("Created") or 0, reverse=True)[:limit]]


def image_exists(name_or_id: str) -> bool:
    """Tell whether an image is on this host, so that no registry is needed for it."""
    with in_our_words(f"look for image {name_or_id}"):
        try:
            api_client().inspect_image(name_or_id)
        except docker.errors.NotFound:
            return False
        return True


def pull_image(name: str, *, timeout_seconds: float) -> None:
    """Fetch an image from its registry; raise Refused, with the registry's words, where that does not succeed."""
    repository, digest = name.partition("@")[::2]
    if not digest:
        head, colon, tag = name.rpartition(":")
        repository, digest = (head, tag) if colon and "/" not in tag else (name, "latest")
    deadline = time.monotonic() + timeout_seconds
    try:
        with in_our_words(f"pull {name}"):
            for said in api_client().pull(repository, tag=digest, stream=True, decode=True):
                if "error" in said:
                    raise BackupError(f"cannot pull {name}: {said['error']}")
                if time.monotonic() > deadline:
                    raise BackupError(f"{name} was not pulled within {timeout_seconds:g} s")
    except BackupError as error:
        raise Refused(error.message, hint=f"is the name right? try it by hand: docker pull {name}") from error


def registry_digest(name: str) -> str | None:
    """Ask an image's registry which digest a name stands for now; None where no registry answers. Nothing is fetched."""
    try:
        with in_our_words(f"ask the registry for {name}"):
            return str(api_client().inspect_distribution(name)["Descriptor"]["digest"])
    except BackupError as error:
        logger.info("%s", error.message)
        return None


def tag_image(image_id: str, name: str) -> None:
    """Let a name stand for an image that is on this host; a name with a digest stands for one image only and is left alone."""
    if "@" in name:
        return
    head, colon, tag = name.rpartition(":")
    repository, tag = (head, tag) if colon and "/" not in tag else (name, "latest")
    with in_our_words(f"let {name} stand for image {image_id[:19]}"):
        api_client().tag(image_id, repository, tag, force=True)


def networks(label: Mapping[str, str] | None = None) -> list[str]:
    """List the names of the networks that carry all of these labels."""
    with in_our_words("list networks"):
        return sorted(each["Name"] for each in api_client().networks(filters={"label": label_filter(label)}))


def network_is_internal(name: str) -> bool:
    """Tell whether a network has no way out; raise BackupError where there is no such network."""
    with in_our_words(f"look at network {name}"):
        return bool(api_client().inspect_network(name)["Internal"])


def remove_network(name: str) -> None:
    """Remove a network; one that is absent is no error."""
    with in_our_words(f"remove network {name}"), suppress(docker.errors.NotFound):
        api_client().remove_network(name)


def volumes(label: Mapping[str, str] | None = None) -> list[str]:
    """List the names of the volumes that carry all of these labels."""
    with in_our_words("list volumes"):
        found = api_client().volumes(filters={"label": label_filter(label)})["Volumes"] or []
        return sorted(each["Name"] for each in found)


def volume_mountpoint(name: str) -> Path | None:
    """Return where the host sees a volume; None where there is no such volume or only Docker can reach it.

    A volume that stands for a directory (`type: none, o: bind, device: /srv/mail`) is seen there, and one for anything
    else (NFS, tmpfs) is not seen: Docker mounts both only while a container runs, and the mount point is an empty
    directory at any other time.
    """
    with in_our_words(f"look at volume {name}"):
        try:
            facts = api_client().inspect_volume(name)
        except docker.errors.NotFound:
            return None
    if not (engine_is_local() and facts.get("Driver") == "local" and facts.get("Mountpoint")):
        return None
    options: dict[str, str] = facts.get("Options") or {}
    if not options.get("device"):
        return Path(facts["Mountpoint"])
    is_directory = {"bind", "rbind"} & set(options.get("o", "").split(",")) and options["device"].startswith("/")
    return Path(options["device"]) if is_directory else None


def remove_volume(name: str) -> None:
    """Remove a volume with its content; one that is absent is no error, one in use is."""
    with in_our_words(f"remove volume {name}"), suppress(docker.errors.NotFound):
        api_client().remove_volume(name)


def environment_of(config: Mapping[str, Any]) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
