"""Upgrade Mail Archiver to another version: backed up, proven, rehearsed, approved, and taken back until `commit`."""

from __future__ import annotations

from datetime import UTC, datetime

from flows.hot_backup import hot_backup
from tasks.prefect_objects import flow
from tasks.run.context import config_of, locked_config
from tasks.run.history import remembered
from tasks.run.installations import read_installation
from tasks.surroundings import run_flow, surroundings
from tasks.upgrade.application_plan import ApplicationPlan, look_ahead_at_application, plan_of_application
from tasks.upgrade.application_rehearsal import last_application_rehearsal, rehearse_application
from tasks.upgrade.application_upgrade import ApplicationUpgraded, upgrade_application
from tasks.upgrade.approval import ask_to_upgrade
from tasks.upgrade.report import report_application_upgrade


@flow(name="application-upgrade", flow_run_name="upgrade of {installation} to {image}")
def application_upgrade(installation: str = "main", image: str = "", confirm: str = "") -> ApplicationUpgraded:
    """Prove a backup of now, rehearse the new version on it, ask, keep a copy of the database, and start the new version.

    Old database, image and compose file are kept: `rollback` brings them back until `commit`, and does so by itself where
    the new version does not answer, fails to migrate, or has fewer mails.

    Args:
        installation: Which installation, by its id in the settings file.
        image: The new image, another tag of the current one's repository: s1t5/mailarchiver:2609.1.
        confirm: The installation's id, typed again: an upgrade changes its data. Empty pauses the run, shows the plan and asks.
    """
    now = datetime.now(UTC)
    plan = rehearse_application_upgrade(installation, image)
    if surroundings().asks_in_prefect and not confirm:
        confirm = ask_to_upgrade(config_of(installation), plan)

    with locked_config(installation, "upgrade", confirmed=confirm) as config:
        stack = read_installation(config)
        upgraded = upgrade_application(config, stack, look_ahead_at_application(stack, image), plan, now=now)

    report_application_upgrade(upgraded)
    return upgraded


def rehearse_application_upgrade(installation: str, image: str) -> ApplicationPlan:
    """Give the plan of an upgrade that was rehearsed: just now, or within the last hour; production is not touched."""
    config = config_of(installation)
    with remembered(config, "upgrade rehearsal"):
        stack = read_installation(config)
        ahead = look_ahead_at_application(stack, image)
        rehearsal = last_application_rehearsal(config, stack, ahead) or rehearse_application(
            config, stack, ahead, run_flow(hot_backup, installation)
        )
    return plan_of_application(stack, ahead, rehearsal)
