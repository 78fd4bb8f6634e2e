"""Beyond the guide: a complete backup of the running stack, without a second of downtime."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from prefect import flow

from tasks.backup.archive import copy_configuration, copy_keys, new_archive, seal_backup
from tasks.backup.data_directory import copy_running_data, plan_data_copy
from tasks.backup.free_space import require_room_for_data
from tasks.core.archive.manifest import Record
from tasks.oversight.reports import report_backup
from tasks.run.context import locked_config
from tasks.run.installations import read_installation


@flow(name="online-backup", flow_run_name="online backup of {installation}")
def online_backup(installation: str = "main") -> Record:
    """Copy the data directory by pg_basebackup with the WAL it needs, then keys and configuration; nothing stops.

    The archive is restored like that of a complete backup, by the guide's own commands too: PostgreSQL recovers from
    the WAL at its first start.

    Args:
        installation: Which installation, by its id in the settings file.
    """
    begun = time.monotonic()
    with locked_config(installation, "online backup") as config:
        stack = read_installation(config)
        plan = plan_data_copy(stack)
        require_room_for_data(stack, config.repository, plan.bytes, config.settings.minimum_free_bytes)

        with new_archive(config, "guide", datetime.now(UTC)) as archive:
            at = copy_running_data(stack, archive, config.dump_limits)
            lacking = copy_keys(stack, archive)
            copy_configuration(stack, archive)
            record = seal_backup(
                stack, archive, method="online", at=at, facts=plan.facts, census=None, warnings=lacking, begun=begun
            )

    report_backup(config, record)
    return record
