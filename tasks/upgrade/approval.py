"""Ask a person before an upgrade: the run pauses in Prefect with the plan and a form."""

from __future__ import annotations

from typing import Protocol

from tasks.oversight.approval import Approval, ask
from tasks.oversight.reports import report_plan
from tasks.run.config import InstallationConfig


class Plan(Protocol):
    """What is to be approved: its image, a short question, and the whole of it as text."""

    @property
    def image(self) -> str: ...

    @property
    def question(self) -> str: ...


class UpgradeApproval(Approval):
    """The form of an upgrade."""


def ask_to_upgrade(config: InstallationConfig, plan: Plan) -> str:
    """Pause the run until somebody has approved the plan; return the typed id. Raise Refused as for a restore."""
    image = plan.image
    report_plan(config, f"upgrade to {image}", str(plan), what="upgrade")
    question = f"{plan.question}\n\nThe whole plan, with what changes in the compose file, is an artifact of this run."
    given = ask(
        config, f"the upgrade to {image}", "upgrade approval", UpgradeApproval.with_initial_data(description=question)
    )
    return given.confirm
