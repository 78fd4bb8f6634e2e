"""The guide's "Restore from SQL Dump": a dump's database and keys, reversibly."""

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
from tasks.restore.database_restore import drop_empty_former, restore_dump, running_postgres
from tasks.restore.drift import compare_containers
from tasks.restore.origin import require_word_for
from tasks.restore.outcome import Restored, RestoreOptions, require_equal
from tasks.run.context import locked_config
from tasks.run.installations import read_installation
from tasks.run.own_backups import choose_backup


@flow(name="sql-dump-restore", flow_run_name="restore of {backup} into {installation}")
def sql_dump_restore(
    installation: str = "main",
    backup: str = "latest",
    confirm: str = "",
    quarantine: bool | None = None,
    restore_config: bool = False,
    without: list[str] | None = None,
    foreign: bool = False,
    with_code: bool = False,
    from_target: str = "",
) -> Restored:
    """Load a dump beside the current database, prove it, and swap the two; the current one is kept until `commit`.

    The application is down only for the swap. Nothing current is touched before the replacement is proven.

    Args:
        installation: Which installation, by its id in the settings file.
        backup: A backup's name, or "latest".
        confirm: The installation's id, typed again: a restore replaces its data.
        quarantine: Keep the restored mail accounts disabled; empty does so for backups older than a day.
        restore_config: Also put the archive's configuration files in place (the current ones are kept beside them).
        without: Objects of the dump to leave out, by the names that a failed verification told; the rest is proven as ever.
        foreign: Restore an archive that is not known as this installation's own: without rights beyond the new database, and in quarantine.
        with_code: Take the code too that such an archive brings (functions, triggers), which the application then runs.
        from_target: Which target of its settings to read the backup from, streamed; empty means the repository.
    """
    now = datetime.now(UTC)
    with (
        locked_config(installation, "restore", confirmed=confirm) as home,
        archives_from(home, from_target, backup) as config,
    ):
        found = find_archive(config.archives, choose_backup(config, backup))
        options = RestoreOptions(
            with_code=with_code,
            quarantine=quarantine,
            start_application=config.fresh,
            limits=config.dump_limits,
            without=tuple(without or ()),
        )

        with running_postgres(read_installation(config), leave_running=config.fresh) as stack:
            why = require_word_for(config, stack, found, Words(foreign, with_code), quarantine)
            options = replace(options, foreign=why)
            restored, archive = restore_dump(stack, found, options, now=now)
            require_equal(restored)
            if config.fresh:
                restored = drop_empty_former(stack, restored)

        drift = compare_containers(stack)
        changes = compare_configuration(stack, archive)
        if restore_config:
            restore_configuration(stack, archive, list(changes), now=now)

    down = () if config.fresh else left_down(stack)
    restored = replace(restored, configuration=changes, notes=(*restored.notes, *drift, *down))
    report_restore(installation, restored)
    return restored
