"""Method 2 of the guide: back up a running stack, without a second of downtime."""

from __future__ import annotations

import time

from tasks.backup.free_space import require_room_for_dump
from tasks.backup.hot import dump_into_archive
from tasks.core.archive.manifest import Format, Record
from tasks.oversight.reports import report_backup
from tasks.prefect_objects import flow
from tasks.run.context import locked_config
from tasks.run.installations import read_installation


@flow(name="hot-backup", flow_run_name="hot backup of {installation}")
def hot_backup(installation: str = "main", format: Format | None = None) -> Record:
    """Back up the database by pg_dump in one snapshot, with roles, keys and configuration, while everything runs.

    The weakness of this method: keys and configuration are copied after the database, so they are of a later moment (they change
    rarely), and a value of more than about 512 MB cannot be dumped; it is found before the dump starts.

    Args:
        installation: Which installation, by its id in the settings file.
        format: "guide" (.tar.gz with plain SQL, restorable by hand) or "fast" (.tar.zst); empty takes the setting.
    """
    begun = time.monotonic()
    with locked_config(installation, "hot backup") as config:
        stack = read_installation(config)
        require_room_for_dump(stack, config.repository, config.settings.minimum_free_bytes)

        record = dump_into_archive(config, stack, format, begun=begun)

    report_backup(config, record)
    return record
