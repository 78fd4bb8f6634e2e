"""Beyond the guide: a complete backup of the running stack, without a second of downtime; of what has changed, where that is wanted."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tasks.backup.archive import copy_configuration, copy_keys, new_archive, seal_backup
from tasks.backup.data_directory import DataPlan, plan_data_copy
from tasks.backup.free_space import require_room_for_data
from tasks.backup.increment import Chain, IncrementRefused, choose_parent, copy_data, full_instead, note_for_next
from tasks.core.archive.manifest import Record
from tasks.core.policy.chains import OnlineKind
from tasks.core.stack.installation import Installation
from tasks.oversight.reports import report_backup
from tasks.prefect_objects import flow
from tasks.run.config import InstallationConfig
from tasks.run.context import locked_config
from tasks.run.installations import read_installation


@flow(name="online-backup", flow_run_name="online backup of {installation}")
def online_backup(installation: str = "main", kind: OnlineKind | None = None) -> Record:
    """Copy the data directory by pg_basebackup with the WAL it needs, then keys and configuration; nothing stops.

    The archive of a full one is restored like that of a complete backup, by the guide's own commands too: PostgreSQL recovers from
    the WAL at its first start. An incremental one holds what has changed since the backup before it, and names what it needs.

    Args:
        installation: Which installation, by its id in the settings file.
        kind: "full", "incremental" (full only where it cannot be otherwise) or "auto" (full from time to time); empty takes the setting.
    """
    begun = time.monotonic()
    with locked_config(installation, "online backup") as config:
        stack = read_installation(config)
        plan = plan_data_copy(stack)
        chain = choose_parent(config, stack, plan, kind, now=datetime.now(UTC))
        try:
            record = _archive(config, stack, plan, chain, begun)
        except IncrementRefused as error:
            record = _archive(config, stack, plan, full_instead(plan, error.message, noted=chain.noted), begun)

    report_backup(config, record)
    return record


def _archive(config: InstallationConfig, stack: Installation, plan: DataPlan, chain: Chain, begun: float) -> Record:
    require_room_for_data(stack, config.repository, chain.bytes, config.settings.minimum_free_bytes)
    # What nobody restores by the guide's commands need not have their format.
    with new_archive(config, "fast" if chain.since else "guide", datetime.now(UTC)) as archive:
        copied = copy_data(stack, archive, config.dump_limits, chain)
        history = note_for_next(stack, archive.name, config, copied) if chain.noted else ""
        lacking = copy_keys(stack, archive)
        copy_configuration(stack, archive)
        return seal_backup(
            stack, archive, method="online", at=copied.at, facts=plan.facts, census=None, warnings=lacking, begun=begun,
            parents=chain.parents, why_full=chain.why_full, history=history,
        )  # fmt: skip
