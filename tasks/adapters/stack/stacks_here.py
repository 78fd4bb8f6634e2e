"""Find the Mail Archiver stacks of this machine, running or stopped, by their containers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.engine import containers
from tasks.adapters.engine.labels import DIRECTORY_LABEL, PROJECT_LABEL, STAGING_LABEL
from tasks.adapters.stack.discovery import discover
from tasks.core.errors import BackupError, NoMailArchiver
from tasks.core.stack.first_settings import FoundStack


@dataclass(frozen=True, slots=True)
class Seen:
    """The stacks that settings can name, and in words why others cannot."""

    stacks: tuple[FoundStack, ...]
    notes: tuple[str, ...]


def stacks_here() -> Seen:
    """Look at every compose project that has a container. A Docker that cannot be asked is a note, no error."""
    try:
        found = containers.containers(label={PROJECT_LABEL: "", DIRECTORY_LABEL: ""})
    except BackupError as error:
        return Seen((), (f"Docker could not be asked which stacks there are: {error.message}",))
    places = {
        (Path(each.labels[DIRECTORY_LABEL]), each.labels[PROJECT_LABEL]) for each in found if STAGING_LABEL not in each.labels
    }  # fmt: skip
    return look_at(sorted(places))


def look_at(places: Sequence[tuple[Path, str | None]]) -> Seen:
    """Look at these directories, each with its compose project where that is known."""
    stacks: list[FoundStack] = []
    notes: list[str] = []
    several = [directory for directory, _ in places]
    for directory, project in places:
        try:
            installation = discover(directory, project=project)
        except NoMailArchiver:  # other projects are nobody's concern here
            continue
        except BackupError as error:
            notes.append(f"Left out {directory}: {error.message}")
            continue
        if any(each.directory == installation.directory for each in stacks):
            notes.append(f"Left out the project {project} of {directory}: settings name a directory once")
            continue
        needed = project if several.count(directory) > 1 else None
        stacks.append(FoundStack(installation.project, installation.directory, needed))
    return Seen(tuple(stacks), tuple(notes))
