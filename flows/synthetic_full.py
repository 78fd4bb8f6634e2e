"""Beyond the guide: a full backup put together from a chain of incremental ones, the database untouched."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tasks.backup.archive import new_archive
from tasks.backup.scratch import scratch_beside
from tasks.core.archive.manifest import Record
from tasks.oversight.reports import report_backup
from tasks.prefect_objects import flow
from tasks.restore.check_archive import find_archive
from tasks.rewrite.content import require_room_for_rewrite, write_content
from tasks.rewrite.synthetic import require_own_chain, seal_synthetic
from tasks.run.context import locked_config
from tasks.run.installations import read_installation
from tasks.run.own_backups import choose_backup


@flow(name="synthetic-full", flow_run_name="synthetic full backup of {installation}")
def synthetic_full(installation: str = "main", backup: str = "latest") -> Record:
    """Put the chain of an incremental backup together, and make a full backup of it, as of the same moment.

    The next incremental backup builds on it. Until a verification has proven it, retention keeps the chain that it was made of.

    Args:
        installation: Which installation, by its id in the settings file.
        backup: The newest link of the chain, by its name, or "latest".
    """
    begun = time.monotonic()
    with locked_config(installation, "synthetic full backup") as config:
        stack = read_installation(config)
        chain = require_own_chain(config, find_archive(config.repository, choose_backup(config, backup)))
        require_room_for_rewrite(chain, config.repository, config.settings.minimum_free_bytes)

        with new_archive(config, "guide", datetime.now(UTC)) as archive, scratch_beside(stack, archive) as scratch:
            checked, base_manifest = write_content(stack, chain, archive, scratch)
            record = seal_synthetic(config, stack, checked, archive, base_manifest, begun=begun)

    report_backup(config, record)
    return record
