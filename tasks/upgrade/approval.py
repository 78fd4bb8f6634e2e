"""Ask a person before an upgrade: the run pauses in Prefect with the plan and a form."""

from __future__ import annotations

from tasks.oversight.approval import Approval, ask
from tasks.oversight.reports import report_plan
from tasks.run.config import InstallationConfig
from tasks.upgrade.plan import UpgradePlan


class UpgradeApproval(Approval):
    """The form of an upgrade."""


def ask_to_upgrade(config: InstallationConfig, plan: UpgradePlan) -> str:
    """Pause the run until somebody has approved the plan; return the typed id. Raise Refused as for a restore."""
    image = plan.ahead.new.name
    report_plan(config, f"upgrade to {image}", str(plan), what="upgrade")
    question = f"{plan.question}\n\nThe whole plan, with what changes in the compose file, is an artifact of this run."
    given = ask(
        config, f"the upgrade to {image}", "upgrade approval", UpgradeApproval.with_initial_data(description=question)
    )
    return given.confirm
