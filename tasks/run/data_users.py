"""Who else uses an installation's data."""

from __future__ import annotations

import logging

from tasks.adapters.stack.data_users import other_users
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation

logger = logging.getLogger(__name__)


def refuse_other_users(installation: Installation) -> None:
    """Raise Refused where a container other than the installation's own PostgreSQL mounts its data, or could run a server on it.

    Who may write to a directory around the data, and is no server, is told alone.
    """
    others = other_users(installation)
    if others.in_the_way:
        raise Refused(
            f"the data directory {installation.data_mount.source} is mounted by {', '.join(others.in_the_way)} too "
            "(itself, or a directory around it)",
            hint="stop and remove what else uses it, or mount no more than it needs, read-only",
        )
    if others.around:
        logger.warning(
            "%s may write to the data directory %s, through a directory around it",
            ", ".join(others.around),
            installation.data_mount.source,
        )
