"""Read an installation: once at the beginning of a run, and again where its containers were started since."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tasks.adapters.discovery import discover
from tasks.adapters.journals import Journal
from tasks.core.errors import UsageError
from tasks.core.installation import Installation
from tasks.step import step
from tasks.work import Work

__all__ = ["discover", "installation_of", "read_installation", "reread"]


@step(name="read installation", run_name="read {work.id}")
def read_installation(work: Work) -> Installation:
    """Read what Docker and the compose files say of an installation.

    Raise UsageError where its repository lies in what is backed up, or the other way round: a backup would hold the backups before it.
    """
    found = discover(work.directory, installation_id=work.id, project=work.project)
    _refuse_repository_in_data(found, work.repository)
    return replace(found, limits=work.service_limits)


def _refuse_repository_in_data(installation: Installation, repository: Path) -> None:
    place = Path(os.path.realpath(repository))
    for what, mount in (("the data", installation.data_mount), ("the data-protection keys", installation.keys_mount)):
        if mount is None or mount.host_path is None:
            continue
        data = Path(os.path.realpath(mount.host_path))
        if place.is_relative_to(data) or data.is_relative_to(place):
            raise UsageError(
                f"the repository {repository} and {what} in {data} lie in each other; what is backed up must not hold its backups",
                hint="give --repository, or the setting `repository`, a directory of its own, best on another disk",
            )


def reread(installation: Installation) -> Installation:
    """Read an installation again: states and addresses may have changed."""
    found = discover(installation.directory, installation_id=installation.id, project=installation.project)
    return replace(found, limits=installation.limits)


def installation_of(journal: Journal) -> Installation:
    """Read the installation that a journal is about."""
    return discover(
        journal.installation_directory, installation_id=journal.installation_id, project=journal.body.get("project")
    )
