"""The worker: starts a process for each flow run of ours, and takes what Prefect's server says as claims.

`python -m deployments.worker`, with Prefect's settings in the environment. Prefect's own process worker runs what the
server names: a command, pull steps, an entrypoint. This one looks a run's deployment up in the list that came with the
program (`tasks/core/policy/run_claims.py`): command, environment, directory and entrypoint are the list's and this
process's own, whatever is changed on the server meanwhile. Another run is refused.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import yaml
from anyio.abc import TaskStatus
from prefect.flows import load_flow_from_entrypoint
from prefect.runner._flow_run_executor import FlowRunExecutionResult, FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.states import Failed
from prefect.utilities.processutils import command_to_string, setup_signal_handlers_worker
from prefect.workers.base import BaseWorkerResult
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from tasks.collector import collect_as_usual
from tasks.core.errors import Refused
from tasks.core.policy.run_claims import LOCKED_TEMPLATE, POOL, POOL_TYPE, Claims, Listed, listed_deployments, ours

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

# In a checkout a link to the list at its top, where `prefect deploy` looks for it; in a wheel a file.
PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
# One that is always there, and outlives an upgrade.
DIRECTORY = "/"
ENVIRONMENT = {
    # Imports come from the installed package, never from a folder `tasks` or `flows` of the directory that somebody happens to be in.
    "PYTHONSAFEPATH": "1",
    # Bring the plain `logging` of the layers below Prefect to the run's page.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks,flows,deployments",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # Prefect gives these loggers a way to the page but no level; the root's counts, which is WARNING by default.
    "PREFECT_LOGGING_ROOT_LEVEL": "INFO",
    "DO_NOT_TRACK": "1",
    # A run that ends while the server is away tries to say so for half an hour, doubling its waits; by default it gives up after a
    # minute, and a backup that is complete shows as failed, or as running for ever.
    "PREFECT_CLIENT_MAX_RETRIES": "10",
}


@functools.cache
def listed() -> dict[str, Listed]:
    """Give the deployments that came with the program, by name."""
    return listed_deployments(yaml.safe_load(PREFECT_FILE.read_text()))


async def claims_of(client: PrefectClient, flow_run: FlowRun) -> Claims:
    """Ask the server for all that it says of a run."""
    flow = await client.read_flow(flow_run.flow_id)
    run_job_variables = flow_run.job_variables or {}
    if flow_run.deployment_id is None:
        return Claims(None, flow.name, run_job_variables=run_job_variables)
    deployment = await client.read_deployment(flow_run.deployment_id)
    # A run may be of another flow than its deployment: both are looked at.
    owner = flow if deployment.flow_id == flow_run.flow_id else await client.read_flow(deployment.flow_id)
    pool = await client.read_work_pool(POOL)
    return Claims(
        deployment.name, flow.name if owner.id == flow.id else f"{flow.name} and {owner.name}", deployment.work_pool_name,
        deployment.entrypoint, deployment.path, str(deployment.storage_document_id) if deployment.storage_document_id else None,
        deployment.pull_steps or (), deployment.job_variables or {}, run_job_variables, pool.base_job_template,
    )  # fmt: skip


class OwnJobConfiguration(ProcessJobConfiguration):
    """The process that a run gets: nothing of it is read from the server."""

    @classmethod
    async def resolve_for_flow_run(cls, flow_run: FlowRun, **context: Any) -> OwnJobConfiguration:
        """Give the same for every run, with the run's id for the environment."""
        configuration = cls(env=dict(ENVIRONMENT), stream_output=False, working_dir=Path(DIRECTORY))
        configuration.prepare_for_flow_run(flow_run)
        return configuration


class GuardedWorker(ProcessWorker):
    """A process worker that runs the flows of this program, and nothing else."""

    type = POOL_TYPE
    job_configuration = OwnJobConfiguration
    _display_name = "mailarchiver-backup"
    _description = "Runs the flows of mailarchiver-backup, and nothing else."

    def __init__(self) -> None:
        super().__init__(work_pool_name=POOL)
        # The deployment of the list that each run under way was judged to be of.
        self.judged: dict[UUID, Listed] = {}

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """Give the template of a pool that lets nothing be set."""
        return LOCKED_TEMPLATE

    async def _submit_run_and_capture_errors(
        self, flow_run: FlowRun, task_status: TaskStatus[int | Exception] | None = None
    ) -> BaseWorkerResult | Exception:
        try:
            self.judged[flow_run.id] = ours(await claims_of(self.client, flow_run), listed())
        except Refused as refused:
            self.get_flow_run_logger(flow_run).error(str(refused))
            await self.client.set_flow_run_state(flow_run.id, Failed(message=str(refused)), force=True)
            if task_status is not None:
                task_status.started(refused)
            return refused
        try:
            return await super()._submit_run_and_capture_errors(flow_run, task_status)
        finally:
            self.judged.pop(flow_run.id, None)

    async def run(
        self, flow_run: FlowRun, configuration: ProcessJobConfiguration, task_status: TaskStatus[int] | None = None
    ) -> ProcessWorkerResult:
        """Start the run's process, wait for its end, and tell how it ended."""
        entrypoint = self.judged[flow_run.id].entrypoint

        async def flow_of(_: FlowRun) -> Flow[..., Any]:
            return load_flow_from_entrypoint(entrypoint)

        async with FlowRunExecutorContext() as context:
            starter = EngineCommandStarter(
                command=command_to_string([sys.executable, "-m", "deployments.flow_process"]),
                entrypoint=entrypoint,
                cwd=configuration.working_dir,
                env=configuration.env,
                # A worker that dies must not take the run's output, and with it the run, along.
                stream_output=configuration.stream_output,
                control_channel=context.control_channel,
                isolate_process_group=True,
                env_overrides_settings=True,
            )
            executor = context.create_executor(flow_run, starter, resolve_flow=flow_of, propose_submitting=False)
            ended: list[FlowRunExecutionResult | None] = []

            async def execute(*, task_status: TaskStatus[ProcessHandle]) -> None:
                ended.append(await executor.submit(task_status=task_status))

            async with anyio.create_task_group() as group:
                handle = await group.start(execute)
                if task_status is not None:
                    task_status.started(handle.pid)
        status = ended[0].status_code if ended and ended[0] else None
        if status is None:
            raise RuntimeError("the flow run's process did not say how it ended")
        return ProcessWorkerResult(status_code=status, identifier=str(handle.pid))


def main() -> None:
    """Run the worker until a signal comes."""
    os.umask(0o077)
    collect_as_usual()
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    asyncio.run(_work())


async def _work() -> None:
    worker = GuardedWorker()
    try:
        await worker.start()
    except asyncio.CancelledError:
        print(f"Worker {worker.name!r} stopped!")


if __name__ == "__main__":
    main()
