"""Ask a person before anything is stopped: the run pauses in Prefect with the plan and a form, and goes on only when approved."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import Field

from tasks.core.errors import Refused
from tasks.core.policy.history import Entry
from tasks.core.units import duration_text
from tasks.oversight.reports import report_approval, report_plan
from tasks.prefect_objects import RunInput
from tasks.restore.plan import RestorePlan
from tasks.run.config import InstallationConfig
from tasks.run.history import remember

logger = logging.getLogger(__name__)

POLL_SECONDS = 2


class Approval(RunInput):
    """What every form of approval asks. The answer that changes nothing stands first."""

    decision: Literal["refuse", "approve"] = Field(
        default="refuse", description="Refuse, and nothing is touched; or approve the plan."
    )
    approved_by: str = Field(
        title="Your name", min_length=1, max_length=100, description="It is kept with the decision and its moment."
    )
    confirm: str = Field(
        default="",
        title="The installation's id, typed again",
        max_length=100,
        description="To approve: its data will be replaced.",
    )


Form = TypeVar("Form", bound=Approval)


class RestoreApproval(Approval):
    """The form. Nothing is chosen that a hurried click could choose: the answer that changes nothing stands first."""

    quarantine: Literal["when older than a day", "yes", "no"] = Field(
        default="when older than a day",
        title="Quarantine of the mail accounts",
        description="Keep them disabled: an old state would delete mail on real servers.",
    )
    restore_config: bool = Field(
        default=False,
        title="Restore the configuration files too",
        description="Those of now are kept beside them; the plan shows what differs.",
    )

    foreign: bool = Field(
        default=False,
        title="The archive may be foreign",
        description="Only where the plan says that it is not known as this installation's own. Its mail accounts stay in quarantine.",
    )
    with_code: bool = Field(
        default=False,
        title="Take a foreign archive's code too",
        description="Functions and triggers that it brings would run as the application's login. Mail Archiver has none.",
    )

    @property
    def wants_quarantine(self) -> bool | None:
        """Give the choice as restores take it: None decides by the backup's age."""
        return {"yes": True, "no": False}.get(self.quarantine)


def ask_for_approval(config: InstallationConfig, plan: RestorePlan) -> RestoreApproval:
    """Pause the run until somebody has filled in the form; return the approval. Nothing is locked or stopped meanwhile.

    Who decided what, and when, goes to the history and to the run's page. Raise Refused where the answer is no, the typed id is wrong, the
    name is missing, or nobody answers within the time that the settings give.
    """
    report_plan(config, plan.name, str(plan))
    # Prefect shows five lines of it and lets one scroll for more: what one must know stands first.
    question = f"{plan.question(config.id)}\n\nThe whole plan, with what differs in the configuration, is an artifact of this run."
    return ask(
        config, f"the restore of {plan.name}", "restore approval", RestoreApproval.with_initial_data(description=question), plan.name
    )  # fmt: skip


def ask(config: InstallationConfig, act: str, run: str, form: type[Form], subject: str = "") -> Form:
    """Pause the run with a form until it is filled in; keep who decided what, and raise Refused where that was no approval."""
    from prefect.exceptions import FlowPauseTimeout
    from prefect.flow_runs import pause_flow_run

    asked = datetime.now(UTC)
    subject = subject or act
    try:
        given = pause_flow_run(
            wait_for_input=form,
            timeout=int(config.settings.timeouts.approval_seconds) or 1,
            poll_interval=POLL_SECONDS,
        )
    except FlowPauseTimeout as timeout:
        waited = duration_text(config.settings.timeouts.approval_seconds)
        _keep(config, run, subject, "refused", "nobody", f"nobody answered within {waited}", asked)
        raise Refused(
            f"nobody approved {act} within {waited}; nothing was touched",
            hint="start the run again; timeouts.approval_seconds in the settings is how long it waits",
        ) from timeout
    problem = _problem(config, given)
    by = given.approved_by.strip() or "somebody who gave no name"
    _keep(config, run, subject, "refused" if problem else "approved", by, problem, asked)
    if problem:
        raise Refused(f"{act} was refused by {by}: {problem}; nothing was touched", hint="start the run again")
    return given


def _keep(
    config: InstallationConfig,
    run: str,
    backup: str,
    outcome: Literal["approved", "refused"],
    by: str,
    problem: str,
    asked: datetime,
) -> None:
    """Keep who decided what, when and why, in the history and on the run's page."""
    at = datetime.now(UTC)
    message = f"{backup}: {outcome} by {by}{f' ({problem})' if problem else ''}"
    seconds = round((at - asked).total_seconds(), 3)
    remember(config, Entry(run=run, at=at, seconds=seconds, outcome=outcome, message=message))
    report_approval(config, run, backup, outcome, by, at, problem)
    logger.info("%s", message)


def _problem(config: InstallationConfig, given: Approval) -> str:
    if given.decision != "approve":
        return "the answer was no"
    if given.confirm.strip() != config.id:
        return f"the typed id was {given.confirm!r}, not {config.id!r}"
    if not given.approved_by.strip():
        return "no name was given"
    return ""
