"""A hot backup's body: the dump of now with roles, keys and configuration, into an archive of its own."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tasks.backup.archive import copy_configuration, copy_keys, new_archive, seal_backup
from tasks.backup.dump import dump_database
from tasks.core.archive.manifest import Format, Record
from tasks.core.stack.installation import Installation
from tasks.run.config import InstallationConfig


def dump_into_archive(
    config: InstallationConfig, stack: Installation, archive_format: Format | None = None, *, begun: float | None = None
) -> Record:
    """Dump the database in one snapshot, copy keys and configuration after it, and seal the archive in the repository.

    `begun` is when the run began (`time.monotonic`), where that was before now.
    """
    begun = time.monotonic() if begun is None else begun
    with new_archive(config, archive_format or config.settings.format, datetime.now(UTC)) as archive:
        dumped = dump_database(stack, archive, config.dump_limits)
        lacking = copy_keys(stack, archive)
        copy_configuration(stack, archive)
        return seal_backup(
            stack, archive, method="hot", at=dumped.at, facts=dumped.facts, census=dumped.census,
            no_census=dumped.no_census, warnings=lacking, begun=begun,
        )  # fmt: skip
