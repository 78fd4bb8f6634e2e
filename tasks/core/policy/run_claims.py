"""What Prefect's server says of a flow run, against the list of deployments that came with the program.

Anyone who has the server's password may write anything there: commands, environments, entrypoints, pull steps, deployments
of their own. So what the server says is a claim. A run is one of ours, and then what is executed is taken from the
list; or it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.core.errors import Refused
from tasks.core.policy.plain_input import shown

POOL = "mailarchiver"
POOL_TYPE = "mailarchiver-backup"
# Nothing of a run can be set in the pool: neither command nor environment nor working directory. Our worker does not
# read it; any other runs `false`.
LOCKED_TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": "false"},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
REPAIR = "`mailarchiver-backup deploy` puts back what was deployed; who else has the server's password?"


@dataclass(frozen=True, slots=True)
class Listed:
    """A deployment as the list has it: its flow bears its name."""

    name: str
    entrypoint: str
    pull_steps: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Claims:
    """What the server says of a run and of its deployment; `deployment` is None for a run that belongs to none."""

    deployment: str | None
    flow: str
    pool: str | None = None
    entrypoint: str | None = None
    path: str | None = None
    storage: str | None = None
    pull_steps: Sequence[Mapping[str, Any]] = ()
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    run_job_variables: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)


def listed_deployments(content: Mapping[str, Any]) -> dict[str, Listed]:
    """Read the deployments of prefect.yaml's content, by name."""
    steps = content.get("pull") or ()
    return {each["name"]: Listed(each["name"], each["entrypoint"], steps) for each in content["deployments"]}


def ours(claims: Claims, listed: Mapping[str, Listed]) -> Listed:
    """Give the deployment of the list that a run belongs to; raise Refused, naming the field that differs."""
    if claims.deployment is None:
        raise Refused(
            f"the run of flow {shown(claims.flow)} belongs to no deployment: it is not started", hint=_known(listed)
        )
    found = listed.get(claims.deployment)
    if found is None:
        raise Refused(
            f"deployment {shown(claims.deployment)} is none of mailarchiver-backup: its run is not started",
            hint=_known(listed),
        )
    for name, seen, wanted in (
        ("flow", claims.flow, found.name),
        ("work_pool", claims.pool, POOL),
        ("entrypoint", claims.entrypoint, found.entrypoint),
        ("path", claims.path, None),
        ("storage_document_id", claims.storage, None),
        ("pull_steps", list(claims.pull_steps), list(found.pull_steps)),
        ("job_variables", dict(claims.job_variables), {}),
        ("base_job_template of the work pool", dict(claims.template), LOCKED_TEMPLATE),
    ):
        if seen != wanted:
            raise Refused(
                f"deployment {found.name} is not as it was deployed, and its run is not started: {name} is {_text(seen)}, not {_text(wanted)}",
                hint=REPAIR,
            )
    if claims.run_job_variables:
        raise Refused(
            f"the run of {found.name} is not started: its job_variables are {_text(dict(claims.run_job_variables))}, and a run may set none",
            hint="start it without; what a run needs stands in the settings file",
        )
    return found


def _known(listed: Mapping[str, Listed]) -> str:
    return f"start one of {', '.join(listed)}"


def _text(value: object) -> str:
    return shown(value) if isinstance(value, str) else shown(json.dumps(value, default=str))
