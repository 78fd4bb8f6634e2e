"""Upgrade PostgreSQL to another major version: rehearsed, approved, proven equal, and taken back until `commit`."""

from __future__ import annotations

from datetime import UTC, datetime

from flows.hot_backup import hot_backup
from tasks.prefect_objects import flow
from tasks.run.context import config_of, locked_config
from tasks.run.history import remembered
from tasks.run.installations import read_installation
from tasks.surroundings import run_flow, surroundings
from tasks.upgrade.approval import ask_to_upgrade
from tasks.upgrade.plan import UpgradePlan, look_ahead, plan_of
from tasks.upgrade.rehearsal import last_rehearsal, rehearse
from tasks.upgrade.report import report_upgrade
from tasks.upgrade.upgrade import Upgraded, upgrade


@flow(name="postgres-upgrade", flow_run_name="upgrade of {installation} to {to}")
def postgres_upgrade(installation: str = "main", to: str = "", confirm: str = "") -> Upgraded:
    """Rehearse the upgrade on staging, ask, then dump, load beside under the new image, prove, and turn to it.

    The stack is down from the last dump to the turn. Old data, image and compose file are kept: `rollback` brings them
    back until `commit`.

    Args:
        installation: Which installation, by its id in the settings file.
        to: The new image, another tag of the current one's repository: postgres:17-alpine.
        confirm: The installation's id, typed again: an upgrade replaces its data. Empty pauses the run, shows the plan and asks.
    """
    now = datetime.now(UTC)
    plan = rehearse_upgrade(installation, to)
    if surroundings().asks_in_prefect and not confirm:
        confirm = ask_to_upgrade(config_of(installation), plan)

    with locked_config(installation, "upgrade", confirmed=confirm) as config:
        stack = read_installation(config)
        upgraded = upgrade(config, stack, look_ahead(stack, to), plan, now=now)

    report_upgrade(upgraded)
    return upgraded


def rehearse_upgrade(installation: str, to: str) -> UpgradePlan:
    """Give the plan of an upgrade that was rehearsed: just now, or within the last day; production is not touched."""
    config = config_of(installation)
    with remembered(config, "upgrade rehearsal"):
        stack = read_installation(config)
        ahead = look_ahead(stack, to)
        rehearsal = last_rehearsal(config, stack, ahead.new) or rehearse(
            config, stack, ahead.new, run_flow(hot_backup, installation)
        )
    return plan_of(stack, ahead, rehearsal)
