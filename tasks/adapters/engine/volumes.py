"""Docker volumes by name: how each was made, who uses it, and making one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import docker.errors

from tasks.adapters.engine.client import api_client, in_our_words
from tasks.adapters.engine.containers import Container, containers
from tasks.adapters.engine.resources import volume_mountpoint


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume; `place` is where this host sees its content, None where only Docker does."""

    name: str
    driver: str
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    place: Path | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether it is a directory of Docker's own, which stands for nothing else."""
        return self.driver == "local" and not self.options


@dataclass(frozen=True, slots=True)
class User:
    """A container that mounts a volume."""

    container: str
    runs: bool
    writes: bool


def find_volume(name: str) -> Volume | None:
    """Give a volume by its name; None where there is none."""
    with in_our_words(f"look at volume {name}"):
        try:
            facts = api_client().inspect_volume(name)
        except docker.errors.NotFound:
            return None
    return Volume(
        facts["Name"], facts.get("Driver") or "local", dict(facts.get("Options") or {}), dict(facts.get("Labels") or {}),
        volume_mountpoint(name),
    )  # fmt: skip


def create_volume(volume: Volume, name: str = "") -> None:
    """Make a volume as another one was made, under its name or another."""
    with in_our_words(f"create volume {name or volume.name}"):
        api_client().create_volume(
            name or volume.name, driver=volume.driver, driver_opts=dict(volume.options), labels=dict(volume.labels)
        )


def users_of(names: set[str]) -> dict[str, tuple[User, ...]]:
    """Give the containers, in any state, that mount each of these volumes."""
    found: dict[str, list[User]] = {name: [] for name in names}
    for each in containers():
        for mount in each.mounts:
            if mount.kind == "volume" and mount.source in found:
                found[mount.source].append(User(each.name, _runs(each), not mount.read_only))
    return {name: tuple(users) for name, users in found.items()}


def _runs(container: Container) -> bool:
    """Tell whether it has its volumes open, or is about to; one that is paused goes on where it was."""
    return container.state in ("running", "paused", "restarting")
