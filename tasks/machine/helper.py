"""A container in which a volume is packed or filled: without a network, and with nothing but that volume."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.adapters.engine import containers
from tasks.adapters.engine.resources import image_exists
from tasks.adapters.machine.volume_tar import VOLUME_PLACE
from tasks.core.errors import BackupError
from tasks.core.machine.tar_words import is_gnu
from tasks.core.stack.installation import Mount
from tasks.recovery.helper_containers import helper_from

logger = logging.getLogger(__name__)

LOOK_SECONDS = 60.0


@contextmanager
def volume_helper(
    image: str, volume: str, *, installation_id: str, directory: Path, read_only: bool = False
) -> Iterator[str]:
    """Start a container that sees a volume and waits; give its id. It goes at the end of the block, and after a kill."""
    mount = Mount("volume", volume, VOLUME_PLACE, None, read_only=read_only)
    with helper_from(
        image, ("86400",), entrypoint=("sleep",), mounts=(mount,), installation_id=installation_id, directory=directory
    ) as helper:
        containers.start_container(helper)
        yield helper


def fitting_image(candidates: Iterable[str], *, installation_id: str, directory: Path) -> str:
    """Give the first of these images that is on this host and has GNU tar; "" where none has."""
    for each in dict.fromkeys(candidates):
        if not each or not image_exists(each):
            continue
        try:
            with helper_from(
                each, ("--version",), entrypoint=("tar",), installation_id=installation_id, directory=directory
            ) as helper:
                containers.start_container(helper)
                if containers.wait_container(helper, LOOK_SECONDS) == 0 and is_gnu(containers.logs(helper)):
                    return each
        except BackupError as error:
            logger.debug("%s has no tar: %s", each, error.message)
    return ""
