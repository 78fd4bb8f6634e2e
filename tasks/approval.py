"""Ask a person before anything is stopped: the run pauses in Prefect with the plan and a form, and goes on only when approved."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Literal

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from tasks.core.errors import Refused
from tasks.core.history import Entry
from tasks.planning import RestorePlan
from tasks.remembering import remember
from tasks.reports import report_approval
from tasks.work import Work

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 3600
POLL_SECONDS = 2


class RestoreApproval(RunInput):
    """The form. Nothing is chosen that a hurried click could choose: the answer that changes nothing stands first."""

    decision: Literal["refuse", "approve"] = Field(
        default="refuse", description="Refuse, and nothing is touched; or approve the plan."
    )
    approved_by: str = Field(default="", max_length=100, description="Your name: it is kept with the decision.")
    confirm: str = Field(default="", max_length=100, description="The installation's id, typed again.")
    quarantine: Literal["when older than a day", "yes", "no"] = Field(
        default="when older than a day",
        description="Keep the restored mail accounts disabled: an old state would delete mail on real servers.",
    )
    restore_config: bool = Field(default=False, description="Also put the archive's configuration files in place.")

    @property
    def wants_quarantine(self) -> bool | None:
        """Give the choice as restores take it: None decides by the backup's age."""
        return {"yes": True, "no": False}.get(self.quarantine)


def ask_for_approval(work: Work, plan: RestorePlan) -> RestoreApproval:
    """Pause the run until somebody has filled in the form; return the approval. Nothing is locked or stopped meanwhile.

    Who decided what, and when, goes to the history and to the run's page. Raise Refused where the answer is no, the typed id is wrong, the
    name is missing, or nobody answers within an hour.
    """
    question = f"### Restore {plan.name} into {work.id}?\n\n{plan}\n\nType `{work.id}` into `confirm` to approve."
    asked = datetime.now(UTC)
    try:
        given: RestoreApproval = pause_flow_run(
            wait_for_input=RestoreApproval.with_initial_data(description=question),
            timeout=PATIENCE_SECONDS,
            poll_interval=POLL_SECONDS,
        )
    except FlowPauseTimeout as timeout:
        raise Refused(
            f"nobody approved the restore of {plan.name} within {PATIENCE_SECONDS // 60} minutes; nothing was touched",
            hint="start the run again",
        ) from timeout
    at = datetime.now(UTC)
    problem = _problem(work, given)
    outcome: Literal["approved", "refused"] = "refused" if problem else "approved"
    by = given.approved_by.strip() or "somebody who gave no name"
    message = f"{plan.name}: {outcome} by {by}{f' ({problem})' if problem else ''}"
    remember(
        work,
        Entry(run="restore approval", at=at, seconds=(at - asked).total_seconds(), outcome=outcome, message=message),
    )
    report_approval(work, plan.name, outcome, by, at, problem)
    logger.info("%s", message)
    if problem:
        raise Refused(
            f"the restore of {plan.name} was refused by {by}: {problem}; nothing was touched",
            hint="start the run again",
        )
    return given


def _problem(work: Work, given: RestoreApproval) -> str:
    if given.decision != "approve":
        return "the answer was no"
    if given.confirm.strip() != work.id:
        return f"the typed id was {given.confirm!r}, not {work.id!r}"
    if not given.approved_by.strip():
        return "no name was given"
    return ""
