"""Find the files that make up a stack's configuration: more than the compose file, and never its data."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.engine.compose import compose_files_in, files_named_in
from tasks.core.errors import Refused
from tasks.core.stack.compose_model import DOT_ENV, ComposeModel
from tasks.core.stack.identify import is_configuration_mount
from tasks.core.stack.installation import Service

FILE_LIMIT_BYTES = 1 << 20
DIRECTORY_LIMIT_BYTES = 4 << 20
DIRECTORY_LIMIT_FILES = 200


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration's files, each once, and what should be there and cannot be read (in words)."""

    files: tuple[Path, ...]
    missing: tuple[str, ...]


def find_configuration(
    directory: Path,
    compose_files: Sequence[Path],
    env_files: Sequence[Path],
    model: ComposeModel | None,
    services: Iterable[Service],
    *,
    data: Collection[str],
) -> Configuration:
    """Return compose files with what they take in, `.env`, env files, and what is bind-mounted as configuration.

    `data` are the places of data in the containers. A directory counts as configuration while it is small.
    """
    wanted = [*compose_files, *_on_disk(directory)]
    wanted += [each for file in wanted for each in files_named_in(file)]
    optional = [directory / DOT_ENV]
    wanted += env_files
    for described in model.services if model else ():
        for env_file in described.env_files:
            (wanted if env_file.required else optional).append(env_file.path)
    files, missing = _sorted_out([*wanted, *(path for path in optional if path.exists())])
    for service in services:
        found, lost = _mounted(service, data)
        files += found
        missing += lost
    return Configuration(tuple(dict.fromkeys(_tidy(path) for path in files)), tuple(dict.fromkeys(missing)))


def _on_disk(directory: Path) -> tuple[Path, ...]:
    """Find what Compose would take today, were it asked: an override may be newer than the containers."""
    try:
        return compose_files_in(directory)
    except Refused:
        return ()


def _sorted_out(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    files, missing = [], []
    for path in paths:
        problem = _problem(path)
        if problem:
            missing.append(f"{path}: {problem}")
        else:
            files.append(path)
    return files, missing


def _problem(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISREG(facts.st_mode):
        return "not a regular file"
    if facts.st_size > FILE_LIMIT_BYTES:
        return f"{facts.st_size:,} bytes are no configuration"
    return "" if os.access(path, os.R_OK) else "permission denied"


def _mounted(service: Service, data: Collection[str]) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    missing: list[str] = []
    # Docker tells a container's mounts in no order.
    for mount in sorted(service.mounts, key=lambda each: each.target):
        place = mount.host_path
        # Not through Path: where we may not look, it raises instead of saying no. Such a place is told as missing below.
        if place is None or not is_configuration_mount(mount, data=data, is_file=os.path.isfile(place)):
            continue
        if os.path.isdir(place):
            small = _small_directory(place)
            files += small or []
            continue
        found, lost = _sorted_out([place])
        files += found
        missing += [f"{each} (mounted at {mount.target} of service {service.name})" for each in lost]
    return files, missing


def _small_directory(directory: Path) -> list[Path] | None:
    """Return the readable regular files below a directory, or None where it is too big to be configuration."""
    files: list[Path] = []
    total_bytes = 0
    for path in _walk(directory):
        if _problem(path):
            continue
        files.append(path)
        total_bytes += path.stat().st_size
        if len(files) > DIRECTORY_LIMIT_FILES or total_bytes > DIRECTORY_LIMIT_BYTES:
            return None
    return files


def _walk(directory: Path) -> Iterator[Path]:
    for place, directories, names in os.walk(directory):
        directories.sort()
        yield from (Path(place) / name for name in sorted(names))


def _tidy(path: Path) -> Path:
    """Resolve the links on the way to a file, not the file itself: links to certificates keep their names."""
    return Path(os.path.realpath(path.parent)) / path.name
