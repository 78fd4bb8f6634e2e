"""Read an installation: once at the beginning of a run, and again where its containers were started since."""

from __future__ import annotations

from dataclasses import replace

from tasks.adapters.discovery import discover
from tasks.adapters.journals import Journal
from tasks.core.installation import Installation
from tasks.step import step
from tasks.work import Work

__all__ = ["discover", "installation_of", "read_installation", "reread"]


@step(name="read installation", run_name="read {work.id}")
def read_installation(work: Work) -> Installation:
    """Read what Docker and the compose files say of an installation."""
    return replace(discover(work.directory, installation_id=work.id, project=work.project), limits=work.service_limits)


def reread(installation: Installation) -> Installation:
    """Read an installation again: states and addresses may have changed."""
    found = discover(installation.directory, installation_id=installation.id, project=installation.project)
    return replace(found, limits=installation.limits)


def installation_of(journal: Journal) -> Installation:
    """Read the installation that a journal is about."""
    return discover(
        journal.installation_directory, installation_id=journal.installation_id, project=journal.body.get("project")
    )
