"""The machine around: Docker volumes, compose projects, images and files, in one archive (the guide's host-level backup)."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tasks.backup.archive import new_archive, seal_system_backup
from tasks.core.archive.manifest import Record
from tasks.machine.back_up import (
    check_host,
    contents_of,
    copy_files,
    copy_volumes,
    require_room_for_host,
    save_images,
)
from tasks.machine.look import host_settings, look_at_host
from tasks.oversight.host import report_host
from tasks.prefect_objects import flow
from tasks.run.context import locked_config
from tasks.run.installations import read_installation


@flow(name="host-backup", flow_run_name="host backup of {installation}")
def host_backup(installation: str = "main") -> Record:
    """Put what the section `host` of the settings names into one archive, and read it back; nothing stops.

    It stands for no backup of the database, and retention counts these for themselves.

    Args:
        installation: Which installation, by its id in the settings file.
    """
    begun, at = time.monotonic(), datetime.now(UTC)
    with locked_config(installation, "host backup") as config:
        stack = read_installation(config)
        seen = look_at_host(host_settings(config), stack)
        require_room_for_host(config, seen)
        # Always gzip: what zstd makes of a gigabyte of zeros would look like a bomb to anyone who reads it.
        with new_archive(config, "guide", at, of_system=True) as archive:
            images = save_images(seen, archive)
            volumes, changed = copy_volumes(config, seen, archive)
            gathered, packages = copy_files(config, seen, archive)
            contents = contents_of(seen, volumes, images, gathered, packages)
            lacking = [*seen.notes, *gathered.left_out, *changed]
            record = seal_system_backup(
                config, archive, method="host", at=at, host=contents, warnings=lacking, begun=begun
            )
        check_host(config, record)

    report_host(config, record)
    return record
