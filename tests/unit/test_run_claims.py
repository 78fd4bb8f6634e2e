"""A run is one of ours as it was deployed, or it is refused by the field that differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.core.errors import Refused
from tasks.core.policy.run_claims import LOCKED_TEMPLATE, POOL, Claims, Listed, listed_deployments, ours

STEPS = [{"prefect.deployments.steps.set_working_directory": {"directory": "/"}}]
LISTED = listed_deployments({"pull": STEPS, "deployments": [{"name": "prune", "entrypoint": "flows.prune.prune"}]})
HONEST = Claims("prune", "prune", POOL, "flows.prune.prune", pull_steps=STEPS, template=LOCKED_TEMPLATE)


def test_an_honest_run_is_ours() -> None:
    assert ours(HONEST, LISTED) == Listed("prune", "flows.prune.prune", STEPS)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"deployment": None}, "belongs to no deployment"),
        ({"deployment": "Prune"}, "deployment 'Prune' is none"),
        ({"deployment": "\x1b[2J"}, "'\\x1b[2J'"),
        ({"flow": "theirs"}, "flow is 'theirs', not 'prune'"),
        ({"pool": None}, "work_pool is 'null', not 'mailarchiver'"),
        ({"pool": "theirs"}, "work_pool is 'theirs'"),
        ({"entrypoint": None}, "entrypoint is 'null', not 'flows.prune.prune'"),
        ({"entrypoint": "os.system"}, "entrypoint is 'os.system'"),
        ({"entrypoint": "flows.prune.prune "}, "entrypoint is"),
        ({"path": "/tmp"}, "path is '/tmp'"),
        ({"storage": "9f"}, "storage_document_id is '9f'"),
        ({"pull_steps": ()}, "pull_steps is '[]'"),
        ({"pull_steps": [*STEPS, {"x": {}}]}, "pull_steps is"),
        ({"job_variables": {"command": "id"}}, "job_variables is '{\"command\": \"id\"}', not '{}'"),
        ({"job_variables": {"env": {}}}, "job_variables is"),
        ({"run_job_variables": {"working_dir": "/tmp"}}, 'its job_variables are \'{"working_dir"'),
        ({"template": {}}, "base_job_template of the work pool is '{}'"),
        ({"template": {**LOCKED_TEMPLATE, "job_configuration": {"command": "id"}}}, "base_job_template"),
    ],
)
def test_a_run_that_differs_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as caught:
        ours(replace(HONEST, **changed), LISTED)

    assert words in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 400
