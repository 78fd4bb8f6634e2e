"""The files of any compose project, as its containers' labels and its compose files name them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tasks.adapters.engine.compose import compose_config
from tasks.adapters.engine.containers import Container
from tasks.adapters.engine.labels import DIRECTORY_LABEL
from tasks.adapters.stack.config_files import find_configuration
from tasks.adapters.stack.find_stack import made_from
from tasks.core.archive.system_contents import HostProject
from tasks.core.errors import BackupError


def files_of_project(name: str, found: Sequence[Container]) -> tuple[HostProject, list[str]]:
    """Give a project's compose files with what they take in, `.env` and env files; and in words what of these is not there."""
    newest = max(found, key=lambda each: each.created_at)
    files, env_files = made_from(newest)
    directory = Path(newest.labels.get(DIRECTORY_LABEL) or (files[0].parent if files else "/"))
    model = None
    with suppress(BackupError):
        model = compose_config(directory, [each for each in files if each.is_file()], name, env_files=env_files)
    seen = find_configuration(directory, files, env_files, model, (), data=())
    project = HostProject(name=name, directory=str(directory), files=[str(each) for each in seen.files])
    return project, [f"of the project {name}: {each}" for each in seen.missing]
