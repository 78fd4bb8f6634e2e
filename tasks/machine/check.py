"""What `doctor` sees of the host that is to be backed up: what is there, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.core.errors import BackupError
from tasks.core.stack.installation import Installation
from tasks.machine.look import database_obstacle, see_host
from tasks.run.config import InstallationConfig


@dataclass(frozen=True, slots=True)
class HostCheck:
    """What stands in a host backup's way, and what is worth knowing, each with a hint; and what is there, as JSON and in lines."""

    obstacles: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    told: dict[str, Any] | None = None
    lines: tuple[str, ...] = ()


def check_host(config: InstallationConfig, stack: Installation) -> HostCheck:
    """Look at what the section `host` names; touch nothing. All is empty where there is no such section."""
    if config.settings.host is None:
        return HostCheck()
    try:
        seen = see_host(config.settings.host, stack)
    except BackupError as error:
        return HostCheck(obstacles=((f"the host cannot be looked at: {error.message}", error.hint),))
    section = "the section `host` of the settings names it; is it spelled right, or gone?"
    obstacles = [(f"backup host: {each}", section) for each in seen.missing]
    if at_work := database_obstacle(seen, stack):
        obstacles.append(
            (f"backup host: {at_work}", "`mailarchiver-backup backup online` copies it; take it out of `host`")
        )
    told = {
        "volumes": [each.volume.name for each in seen.volumes],
        "in_use": [each.volume.name for each in seen.volumes if each.writers],
        "projects": [each.name for each in seen.projects],
        "images": [each.name for each in seen.images],
        "paths": [str(each) for each in seen.paths],
        "missing": list(seen.missing),
    }
    line = (
        f"volumes {', '.join(told['volumes']) or 'none'}; projects {', '.join(told['projects']) or 'none'};"
        f" {len(seen.images)} images; {len(seen.paths)} paths"
    )
    return HostCheck(tuple(obstacles), tuple((f"backup host: {each}", section) for each in seen.notes), told, (line,))
