"""Helper containers from an installation's own images.

Each is noted in a journal before it is made, and removed with its volumes, after a kill too.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.adapters.engine import containers
from tasks.adapters.engine.labels import HELPER_LABEL
from tasks.adapters.host.journals import Journal, open_journal
from tasks.core.stack.installation import Installation, Mount
from tasks.recovery.journalled import journalled

logger = logging.getLogger(__name__)

KIND = "helper"
LATE_SECONDS = 5.0
_POLL_SECONDS = 0.1


@contextmanager
def helper_container(
    installation: Installation,
    command: Sequence[str],
    *,
    mounts: Sequence[Mount] = (),
    environment: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    entrypoint: Sequence[str] | None = None,
) -> Iterator[str]:
    """Create (not start) a container from the image of the installation's PostgreSQL, without any network; give its id.

    It goes at the end of the block, with the volume that its image declares; where this process is killed before,
    `recover` and the next run remove both.
    """
    with helper_from(
        installation.postgres.image_id, command, installation_id=installation.id, directory=installation.directory,
        mounts=mounts, environment=environment, labels=labels, entrypoint=entrypoint,
    ) as container_id:  # fmt: skip
        yield container_id


@contextmanager
def helper_from(
    image_id: str,
    command: Sequence[str],
    *,
    installation_id: str,
    directory: Path,
    mounts: Sequence[Mount] = (),
    environment: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    entrypoint: Sequence[str] | None = None,
) -> Iterator[str]:
    """Create (not start) a helper container from any image that is here, for an installation that need not be; give its id."""
    mark = secrets.token_hex(8)
    journal = open_journal(KIND, {"mark": mark}, installation_id=installation_id, installation_directory=directory)

    def give_back() -> None:
        _remove(mark)

    with journalled(journal, give_back):
        yield containers.create_helper(
            image_id,
            command,
            mounts=mounts,
            environment=environment,
            labels={**(labels or {}), HELPER_LABEL: mark},
            entrypoint=entrypoint,
        )


def settle(journal: Journal) -> str:
    """Remove the helper container of a dead run. Docker may still be about to make it: its maker was killed while it asked."""
    deadline = time.monotonic() + LATE_SECONDS
    while not (removed := _remove(str(journal.body["mark"]))) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return f"removed the helper container {removed}" if removed else "no helper container was left"


def _remove(mark: str) -> str:
    """Remove the containers of this mark with their anonymous volumes; return their names."""
    found = containers.containers(label={HELPER_LABEL: mark})
    for container in found:
        containers.remove_container(container.id, force=True)
    return ", ".join(container.name for container in found)
