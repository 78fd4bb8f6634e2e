"""Make the work pool, or make it again as it has to be: of our type, and letting nothing be set for a run."""

from __future__ import annotations

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from tasks.core.policy.run_claims import LOCKED_TEMPLATE, POOL, POOL_TYPE


def lock_pool(client: SyncPrefectClient) -> None:
    """See to it that the pool is there, of our type, with the template that lets nothing be set."""
    wanted = WorkPoolCreate(name=POOL, type=POOL_TYPE, base_job_template=LOCKED_TEMPLATE)
    try:
        found = client.read_work_pool(POOL)
    except ObjectNotFound:
        client.create_work_pool(wanted)
        return
    if found.type != POOL_TYPE:
        # A pool keeps its type. Deploying gives the deployments their queues again, and their planned runs.
        client.delete_work_pool(POOL)
        client.create_work_pool(wanted)
    elif found.base_job_template != LOCKED_TEMPLATE:
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=LOCKED_TEMPLATE))
