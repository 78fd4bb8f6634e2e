"""The guide's restore script: look at the archive, show the plan, and run the restore that fits it."""

from __future__ import annotations

from pathlib import Path

from flows.full_restore import full_restore
from flows.sql_dump_restore import sql_dump_restore
from tasks.copies.view import archives_from
from tasks.core.archive.origin import Words
from tasks.core.errors import UsageError
from tasks.oversight.approval import ask_for_approval
from tasks.prefect_objects import flow
from tasks.restore.check_archive import already_checked, check_backup
from tasks.restore.fresh_host import set_up_fresh_host
from tasks.restore.origin import require_word_for_fresh_host, trusted_on_fresh_host
from tasks.restore.outcome import Restored
from tasks.restore.plan import RestorePlan, fitting_restore, plan_restore
from tasks.run.config import InstallationConfig
from tasks.run.context import config_of, given_configs
from tasks.run.own_backups import choose_backup
from tasks.surroundings import run_flow, surroundings


@flow(name="guided-restore", flow_run_name="guided restore of {backup} into {installation}")
def guided_restore(
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
    """Look at the archive and run the restore that fits it: a dump beside the current database, or a whole data directory.

    Args:
        installation: Which installation, by its id in the settings file.
        backup: A backup's name, or "latest".
        confirm: The installation's id, typed again: a restore replaces its data. Empty pauses the run, shows the plan and asks.
        quarantine: Keep the restored mail accounts disabled; empty does so for backups older than a day.
        restore_config: Also put the archive's configuration files in place (the current ones are kept beside them).
        without: Objects of a dump to leave out, by the names that a failed verification told; the rest is proven as ever.
        foreign: Restore an archive that is not known as this installation's own: without rights beyond the new database, and in quarantine.
        with_code: Take the code too that such an archive brings (functions, triggers), which the application then runs.
        from_target: Which target of its settings to read the backup from, streamed; empty means the repository.
    """
    home = config_of(installation)
    with archives_from(home, from_target, backup) as config, given_configs({config.id: config}):
        backup = choose_backup(config, backup)
        if surroundings().asks_in_prefect and not confirm:
            plan = plan_restore(config, backup, quarantine)
            approval = ask_for_approval(config, plan)
            backup, confirm = plan.name, approval.confirm
            quarantine, restore_config = approval.wants_quarantine, approval.restore_config
            foreign, with_code = approval.foreign, approval.with_code
        fitting = fitting_restore(config, backup)
        if fitting == "data directory":
            if without:
                raise UsageError(
                    f"{backup} holds a data directory, of which nothing can be left out", hint="leave --without away"
                )
            return run_flow(
                full_restore, installation, backup, confirm, quarantine, restore_config, foreign, with_code, from_target
            )
        return run_flow(
            sql_dump_restore, installation, backup, confirm, quarantine, restore_config, without, foreign, with_code,
            from_target,
        )  # fmt: skip


def show_plan(installation: str, backup: str, quarantine: bool | None) -> RestorePlan:
    """Tell what a restore would do, having looked at the archive and at what it would replace; touch nothing."""
    config = config_of(installation)
    return plan_restore(config, choose_backup(config, backup), quarantine)


def restore_fresh_host(
    config: InstallationConfig | None,
    backup: str,
    directory: Path,
    *,
    quarantine: bool | None,
    words: Words,
    without: list[str] | None = None,
    trusted_keys: tuple[str, ...] = (),
    project: str | None = None,
) -> Restored:
    """Set a stack up from an archive in an empty directory, and restore its data into it.

    Its compose project is `project`, else the settings', else the archive's. The archive is known by a key: of this host's state directory, of the settings, or of `trusted_keys`.
    """
    repository = config.repository if config else Path.cwd()
    archive = check_backup(config.archives if config else repository, backup)
    trusted = trusted_on_fresh_host(config, archive, trusted_keys)
    require_word_for_fresh_host(archive, trusted, words, quarantine)
    project = project or (config.project if config else None)
    fresh = set_up_fresh_host(archive, directory, repository, project=project, trusted_keys=trusted)
    with given_configs({fresh.id: fresh}), already_checked(archive):
        return run_flow(
            guided_restore,
            fresh.id,
            str(archive.path),
            confirm=fresh.id,
            quarantine=quarantine,
            without=without,
            foreign=words.foreign,
            with_code=words.with_code,
        )
