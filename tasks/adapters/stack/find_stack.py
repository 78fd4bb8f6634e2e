"""Find a directory's stack: its containers, its compose files and what Compose makes of them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.engine import containers
from tasks.adapters.engine.compose import compose_config, compose_files_in, env_files_beside
from tasks.adapters.engine.containers import Container
from tasks.adapters.engine.labels import (
    DIRECTORY_LABEL,
    ENV_FILES_LABEL,
    FILES_LABEL,
    ONE_OFF_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
)
from tasks.core.errors import Refused
from tasks.core.stack.compose_model import FILE_NAMES, ComposeModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stack:
    """What was found of a compose project: its containers by service, and its files with what they say.

    `base` is the directory that Compose knows the project by. `model` is None where the files cannot be understood while
    containers exist; then `model_error` says why.
    """

    directory: Path
    base: Path
    project: str
    containers: Mapping[str, tuple[Container, ...]]
    compose_files: tuple[Path, ...]
    env_files: tuple[Path, ...]
    model: ComposeModel | None
    model_error: str = ""


def find_stack(directory: Path, *, project: str | None = None) -> Stack:
    """Return the one compose project of a directory; raise Refused where there is none, or more than one."""
    directory = _real_directory(directory)
    found = _containers_of(directory, project)
    projects = sorted({each.labels[PROJECT_LABEL] for each in found})
    if len(projects) > 1:
        raise Refused(
            f"{directory} has containers of more than one compose project: {', '.join(projects)}",
            hint="name the one that is meant (--project, or the setting `project`), or remove the other's containers",
        )
    files, env_files = _files(directory, found)
    if not found and not files:
        raise Refused(
            f"there is no Mail Archiver in {directory}: no compose file, and no container that was started from there",
            hint=f"give the directory that holds {FILE_NAMES[2]}",
        )
    base = _base(directory, files, found)
    model, error = _model(base, files, projects[0] if projects else project, found, env_files)
    if not found and model is not None:
        _refuse_namesake(directory, model.project)
    by_service: dict[str, list[Container]] = {}
    for each in found:
        by_service.setdefault(each.labels[SERVICE_LABEL], []).append(each)
    name = projects[0] if projects else model.project if model else ""
    return Stack(
        directory=directory,
        base=base,
        project=name,
        containers={service: tuple(several) for service, several in by_service.items()},
        compose_files=files,
        env_files=env_files,
        model=model,
        model_error=error,
    )


def _refuse_namesake(directory: Path, project: str) -> None:
    """Raise Refused where a project has containers, but from elsewhere: its volumes are theirs, and Compose would replace them."""
    others = [each for each in containers.containers(label={PROJECT_LABEL: project}) if DIRECTORY_LABEL in each.labels]
    places = sorted({each.labels[DIRECTORY_LABEL] for each in others})
    if places:
        raise Refused(
            f"{directory} has no containers, and those of its compose project, {project}, are from {', '.join(places)}",
            hint="give that directory; or, where two stacks have one name, set COMPOSE_PROJECT_NAME in the .env of one",
        )


def lives_in(container: Container, directory: Path) -> bool:
    """Tell whether Compose started a container from a directory (or with compose files out of it)."""
    if _same_place(container.labels.get(DIRECTORY_LABEL, ""), directory):
        return True
    return any(_same_place(os.path.dirname(file), directory) for file in _listed(container, FILES_LABEL))


def _real_directory(directory: Path) -> Path:
    try:
        real = directory.expanduser().resolve(strict=True)
        is_directory = real.is_dir()
    except FileNotFoundError:
        raise Refused(f"there is no directory {directory}", hint="is the path spelled right?") from None
    except (OSError, RuntimeError) as error:
        raise Refused(f"the directory {directory} cannot be opened: {error}", hint="run with sudo?") from error
    if not is_directory:
        raise Refused(f"{directory} is not a directory", hint="give the directory that holds the compose file")
    return real


def _containers_of(directory: Path, project: str | None) -> list[Container]:
    every = containers.containers(label={PROJECT_LABEL: project or "", SERVICE_LABEL: ""})
    # COMPOSE_FILE may name files elsewhere; to Compose, the project then lives where the first of them is.
    chosen = [_by_its_real_directory(path) for path in _chosen_files(directory)]
    return [
        each
        for each in every
        if each.labels.get(ONE_OFF_LABEL) != "True"
        and (lives_in(each, directory) or (chosen and chosen == _made_from(each)))
    ]


def _chosen_files(directory: Path) -> tuple[Path, ...]:
    try:
        return compose_files_in(directory)
    except Refused:
        return ()


def _made_from(container: Container) -> list[Path]:
    return [_by_its_real_directory(Path(path)) for path in _listed(container, FILES_LABEL)]


def _same_place(path: str, directory: Path) -> bool:
    return bool(path) and os.path.realpath(path) == str(directory)


def _listed(container: Container, label: str) -> list[str]:
    # Compose joins the paths with commas and escapes none: one within a path is not followed by a slash.
    return [path for path in re.split(r",(?=/)", container.labels.get(label, "")) if path.startswith("/")]


def _files(directory: Path, found: Sequence[Container]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return compose files and env files: those the newest container was made from, else by Compose's own rule."""
    newest = max(found, key=lambda each: each.created_at, default=None)
    named = [Path(path) for path in _listed(newest, FILES_LABEL)] if newest else []
    present = [path for path in named if path.is_file()]
    if named and len(present) < len(named):
        gone = ", ".join(str(path) for path in named if path not in present)
        logger.warning("The containers were made from compose files that are gone: %s", gone)
    files = present or list(compose_files_in(directory))
    env_files = [Path(path) for path in _listed(newest, ENV_FILES_LABEL)] if newest else []
    env_files = env_files or list(env_files_beside(directory, files))
    return (
        tuple(_by_its_real_directory(path) for path in files),
        tuple(_by_its_real_directory(path) for path in env_files if path.is_file()),
    )


def made_from(container: Container) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Give the compose files and the env files that a container was made from, as its labels name them."""
    files = [_by_its_real_directory(Path(path)) for path in _listed(container, FILES_LABEL)]
    named = [Path(path) for path in _listed(container, ENV_FILES_LABEL)]
    env_files = named or list(env_files_beside(Path(container.labels.get(DIRECTORY_LABEL, "/")), files))
    return tuple(files), tuple(_by_its_real_directory(path) for path in env_files if path.is_file())


def _by_its_real_directory(path: Path) -> Path:
    """Resolve the links on the way to a file, but not the file: its name is what Compose knows."""
    return Path(os.path.realpath(path.parent)) / path.name


def _base(directory: Path, files: Sequence[Path], found: Sequence[Container]) -> Path:
    told = (Path(each.labels[DIRECTORY_LABEL]) for each in found if DIRECTORY_LABEL in each.labels)
    return next((place for place in told if place.is_dir()), files[0].parent if files else directory)


def _model(
    base: Path, files: Sequence[Path], project: str | None, found: Sequence[Container], env_files: Sequence[Path]
) -> tuple[ComposeModel | None, str]:
    if not files:
        return None, "there is no compose file"
    try:
        return compose_config(base, files, project, env_files=env_files), ""
    except Refused as error:
        if not found:
            raise
        logger.warning("%s; what runs is taken from its containers", error.message)
        return None, error.message
