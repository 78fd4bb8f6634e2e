"""Method 1 of the guide: everything, copied while the stack is stopped; it is down for the copy alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tasks.backup.archive import copy_configuration, copy_keys, new_archive, seal_backup
from tasks.backup.data_directory import copy_stopped_data, first_copy, plan_data_copy
from tasks.backup.free_space import require_room_for_data
from tasks.core.archive.manifest import Record
from tasks.core.policy.copy_plan import CopyWay, way_for
from tasks.oversight.reports import report_backup
from tasks.prefect_objects import flow
from tasks.recovery.stopped_services import stopped
from tasks.restore.probe import require_answer
from tasks.run.context import locked_config
from tasks.run.installations import read_installation


@flow(name="complete-backup", flow_run_name="complete backup of {installation}")
def complete_backup(installation: str = "main", way: CopyWay | None = None) -> Record:
    """Stop the stack, copy data files, keys and configuration, and start it again as soon as the bytes are copied.

    What ran before runs afterwards, whatever happens; what was stopped stays stopped.

    Args:
        installation: Which installation, by its id in the settings file.
        way: "stream" into the archive while the stack is down, or "copy first" while it runs and then only what changed; empty chooses by
            size and room.
    """
    begun = time.monotonic()
    with locked_config(installation, "complete backup") as config:
        stack = read_installation(config)
        data = plan_data_copy(stack)
        plan = require_room_for_data(
            stack,
            config.repository,
            data.bytes,
            config.settings.minimum_free_bytes,
            way=way_for(way, encrypted=config.settings.encryption is not None),
        )

        with new_archive(config, "guide", datetime.now(UTC)) as archive:
            with (
                first_copy(stack, archive, plan) as first,
                stopped(stack, [stack.application, stack.postgres], reason="a complete backup") as loan,
            ):
                at = copy_stopped_data(stack, archive, loan, data.wal_segment_bytes, first)
            lacking = copy_keys(stack, archive)
            copy_configuration(stack, archive)
            record = seal_backup(
                stack, archive, method="complete", at=at, facts=data.facts, census=None, warnings=lacking, begun=begun,
                downtime_seconds=loan.downtime_seconds,
            )  # fmt: skip
        require_answer(stack)

    report_backup(config, record)
    return record
