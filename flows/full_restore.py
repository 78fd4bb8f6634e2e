"""The guide's "Full Restore from Complete Backup": a whole data directory and keys, reversibly."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from tasks.copies.view import archives_from
from tasks.core.archive.origin import Words
from tasks.core.stack.installation import left_down
from tasks.oversight.reports import report_restore
from tasks.prefect_objects import flow
from tasks.restore.check_archive import find_archive
from tasks.restore.config_files import compare_configuration, restore_configuration
from tasks.restore.directory_restore import restore_copy
from tasks.restore.drift import compare_containers
from tasks.restore.origin import require_word_for
from tasks.restore.outcome import Restored, RestoreOptions, require_equal
from tasks.run.context import locked_config
from tasks.run.installations import read_installation
from tasks.run.own_backups import choose_backup


@flow(name="full-restore", flow_run_name="full restore of {backup} into {installation}")
def full_restore(
    installation: str = "main",
    backup: str = "latest",
    confirm: str = "",
    quarantine: bool | None = None,
    restore_config: bool = False,
    foreign: bool = False,
    with_code: bool = False,
    from_target: str = "",
) -> Restored:
    """Extract the data directory beside the current one, prove it by a private PostgreSQL, and swap the two; the current one is kept.

    The stack is down only for the swap. Another PostgreSQL major, libc, collation version or architecture is refused
    before anything is touched.

    Args:
        installation: Which installation, by its id in the settings file.
        backup: A backup's name, or "latest".
        confirm: The installation's id, typed again: a restore replaces its data.
        quarantine: Keep the restored mail accounts disabled; empty does so for backups older than a day.
        restore_config: Also put the archive's configuration files in place (the current ones are kept beside them).
        foreign: Restore an archive that is not known as this installation's own: without rights beyond the new database, and in quarantine.
        with_code: Take the code too that such an archive brings (functions, triggers), which the application then runs.
        from_target: Which target of its settings to read the backup from, streamed; empty means the repository.
    """
    now = datetime.now(UTC)
    with (
        locked_config(installation, "restore", confirmed=confirm) as home,
        archives_from(home, from_target, backup) as config,
    ):
        stack = read_installation(config)
        found = find_archive(config.archives, choose_backup(config, backup))
        why = require_word_for(config, stack, found, Words(foreign, with_code), quarantine)
        options = RestoreOptions(
            quarantine=quarantine, start_application=config.fresh, limits=config.dump_limits, foreign=why
        )

        restored, archive = restore_copy(stack, found, options, now=now)
        require_equal(restored)

        drift = compare_containers(stack)
        changes = compare_configuration(stack, archive)
        if restore_config:
            restore_configuration(stack, archive, list(changes), now=now)

    down = () if config.fresh else left_down(stack)
    restored = replace(restored, configuration=changes, notes=(*restored.notes, *drift, *down))
    report_restore(installation, restored)
    return restored
