"""The way back from a restore or an upgrade, and the end of that way: rollback, commit, and the end of a quarantine."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.oversight.reports import report_done
from tasks.prefect_objects import flow
from tasks.restore.database_restore import end_quarantine, running_postgres
from tasks.restore.rollback import RolledBack, drop_all_kept, put_back_newest
from tasks.run.context import config_of, locked_config
from tasks.run.installations import read_installation
from tasks.upgrade.application_back import mails_that_go
from tasks.upgrade.kept import drop_kept_upgrades, put_back_upgrade, upgrade_to_take_back


@flow(name="rollback", flow_run_name="rollback of {installation}")
def rollback(installation: str = "main", confirm: str = "") -> RolledBack:
    """Bring back what the last restore or upgrade replaced; what that had brought is kept until `commit`.

    Args:
        installation: Which installation, by its id in the settings file.
        confirm: The installation's id, typed again.
    """
    with locked_config(installation, "rollback", confirmed=confirm) as config:
        stack = read_installation(config)
        upgrade = upgrade_to_take_back(stack)
        if upgrade is not None:
            done = put_back_upgrade(config, stack, upgrade, now=datetime.now(UTC))
        else:
            with running_postgres(stack) as stack:
                done = put_back_newest(stack, now=datetime.now(UTC))

    report_done(installation, "rollback", str(done))
    return done


def what_goes(installation: str) -> str:
    """Say how many mails a rollback of an upgrade of the application would go back before; "" where it is of something else."""
    stack = read_installation(config_of(installation))
    upgrade = upgrade_to_take_back(stack)
    return mails_that_go(stack, upgrade.application) if upgrade is not None and upgrade.application is not None else ""


@flow(name="commit", flow_run_name="commit of {installation}")
def commit(installation: str = "main", confirm: str = "") -> list[str]:
    """Drop everything that restores, upgrades and rollbacks have put aside; there is no way back from this.

    Args:
        installation: Which installation, by its id in the settings file.
        confirm: The installation's id, typed again.
    """
    with locked_config(installation, "commit", confirmed=confirm) as config:
        with running_postgres(read_installation(config)) as stack:
            dropped = [*drop_all_kept(stack), *drop_kept_upgrades(stack)]

    report_done(installation, "commit", "\n".join(f"- dropped {name}" for name in dropped) or "Nothing was kept.")
    return dropped


@flow(name="lift-quarantine", flow_run_name="end of quarantine of {installation}")
def lift_quarantine(installation: str = "main") -> int:
    """Give the mail accounts of restored data the settings they had, so that they synchronise and delete again.

    Args:
        installation: Which installation, by its id in the settings file.
    """
    with locked_config(installation, "end of quarantine") as config:
        with running_postgres(read_installation(config)) as stack:
            lifted = end_quarantine(stack)

    report_done(installation, "lift-quarantine", f"{lifted} mail accounts have their settings back.")
    return lifted
