"""The step of each restore that tells how the running containers differ from an edited compose file."""

from __future__ import annotations

import logging

from tasks.adapters.stack.drift import configuration_drift
from tasks.core.stack.installation import Installation
from tasks.step import step

logger = logging.getLogger(__name__)


@step(name="compare containers")
def compare_containers(installation: Installation) -> tuple[str, ...]:
    """Say how the containers differ from the compose files as they are now: what a restore brings back, runs on what the containers are."""
    found = tuple(configuration_drift(installation))
    for difference in found:
        logger.warning("%s", difference)
    return found
