"""prefect.yaml without a server: what it names exists, and what it passes fits."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import load_flow_from_entrypoint

from deployments.worker import ENVIRONMENT, listed
from tasks.core.policy.run_claims import POOL

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_entrypoint_loads_and_parameters_fit(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A deployment that cannot start, from any directory, is found here, not at three in the morning."""
    monkeypatch.chdir(tmp_path)
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    scheduled = [schedule.get("parameters", {}) for schedule in deployment.get("schedules", [])]

    for parameters in (deployment.get("parameters", {}), *scheduled):
        assert set(parameters) <= set(flow.parameters.properties)
        flow.validate_parameters({**parameters})
    assert deployment["description"]
    # The worker knows a deployment by its flow, and gives it no way to set anything else.
    assert flow.name == deployment["name"]
    assert set(deployment["work_pool"]) <= {"name", "work_queue_name"}
    assert deployment["work_pool"]["name"] == POOL


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_schedules_keep_clear_of_the_applications_own_jobs(deployment: dict[str, Any]) -> None:
    """Mail Archiver runs its VACUUM at 02:00 and its storage refresh at 02:30."""
    for schedule in deployment.get("schedules", []):
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        minute, hour = schedule["cron"].split()[:2]
        assert hour != "2", f"{deployment['name']} runs at {hour}:{minute}"
        assert schedule["slug"]
        assert schedule["timezone"]


def test_no_parameter_can_name_a_file_or_a_secret() -> None:
    """Prefect stores and shows parameters, and anyone who reaches its API sets them."""
    for deployment in DEPLOYMENTS:
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        for name in flow.parameters.properties:
            assert not any(word in name for word in ("path", "directory", "password", "secret", "repository"))


def test_names_are_unique() -> None:
    names = [deployment["name"] for deployment in DEPLOYMENTS]

    assert sorted(set(names)) == sorted(names) == sorted(listed())


def test_runs_without_a_checkout_log_what_a_checkout_logs() -> None:
    """A worker's run does not stand in the checkout, and so does not read the settings that pyproject.toml has for Prefect."""
    logging = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["prefect"]["logging"]
    assert ENVIRONMENT["PREFECT_LOGGING_EXTRA_LOGGERS"] == logging["extra_loggers"]
    assert ENVIRONMENT["PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW"] == logging["to_api"]["when_missing_flow"]
    assert ENVIRONMENT["PYTHONSAFEPATH"] == "1"
