"""Bring a Prefect server to what prefect.yaml and the settings say, beyond what `prefect deploy` does.

It removes schedules and deployments of ours that are no longer wanted, limits the queues, and sees to the automations that only a
server can run: dead runs are marked as crashed, late and crashed runs told to people.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect.blocks.fields import SecretDict
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypesOrUnknown, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from deployments.webhooks import Webhook, webhooks
from tasks.adapters.host.outside_files import SETTINGS, read_outside
from tasks.adapters.host.settings_file import load_settings
from tasks.core.archive.names import BACKUP_PARAMETER
from tasks.core.plain_text import plain

TAG = "mailarchiver"
OURS = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
RUNS_OF_OURS: dict[str, str | list[str]] = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
HEARTBEAT = "prefect.flow-run.heartbeat"
SILENCE = timedelta(seconds=90)
# A queue's runs wait for each other, and one that waits is Late after 15 s.
PATIENCE = timedelta(hours=1)
DEFAULT_QUEUE = "default"
# A second watch frees the places of those that died; more at once, as after a day without a host, only take memory.
AT_ONCE = {"watches": 2}
BLOCK = "mailarchiver-alarm"


def remove_unwanted(client: SyncPrefectClient, wanted: Mapping[str, set[str]]) -> list[str]:
    """Remove our deployments that are not `wanted`, and schedules of theirs whose slug is not; return what went, in words."""
    gone = []
    for deployment in client.read_deployments(deployment_filter=OURS):
        slugs = wanted.get(deployment.name)
        if slugs is None:
            client.delete_deployment(deployment.id)
            gone.append(f"deployment {deployment.name}")
            continue
        for schedule in client.read_deployment_schedules(deployment.id):
            if schedule.slug not in slugs:
                client.delete_deployment_schedule(deployment.id, schedule.id)
                gone.append(f"schedule {schedule.slug} of {deployment.name}")
    return gone


def tighten_parameters(client: SyncPrefectClient, installations: Sequence[str], targets: Sequence[str]) -> None:
    """Have the server refuse, with a reason and before any run begins, what a run would refuse: unknown keys and installations, and paths.

    The known installations, and the targets of copies, become lists to choose from in the UI.
    """
    for deployment in client.read_deployments(deployment_filter=OURS):
        schema = copy.deepcopy(dict(deployment.parameter_openapi_schema or {}))
        schema["additionalProperties"] = False
        properties = schema.get("properties", {})
        if "installation" in properties:
            properties["installation"]["enum"] = list(installations)
        for name in {"target", "from_target"} & properties.keys():
            properties[name]["enum"] = ["", *targets]
        if "backup" in properties:
            properties["backup"]["pattern"] = BACKUP_PARAMETER
        client.update_deployment(deployment.id, DeploymentUpdate(parameter_openapi_schema=schema))


def limit_queues(client: SyncPrefectClient, pool: str) -> None:
    """Let each queue that prefect.yaml's deployments name run one flow at a time (watches: two); the pool's default queue has no limit."""
    for queue in client.read_work_queues(work_pool_name=pool):
        if queue.name != DEFAULT_QUEUE:
            client.update_work_queue(queue.id, concurrency_limit=AT_ONCE.get(queue.name, 1))


def crash_zombies() -> AutomationCore:
    """Mark a run as crashed whose heartbeats stopped without an end: killed with its worker, it would show as running for ever."""
    return AutomationCore(
        name="mailarchiver: mark dead runs as crashed",
        description="A run of mailarchiver-backup whose heartbeat stopped has died; its watchdog has given back what it had stopped.",
        trigger=EventTrigger(
            after={HEARTBEAT}, expect={HEARTBEAT, *ENDED}, match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=RUNS_OF_OURS, for_each={"prefect.resource.id"}, posture=Posture.Proactive, threshold=1, within=SILENCE,
        ),
        actions=[ChangeFlowRunState(name=None, force=False, state=StateType.CRASHED, message=f"no heartbeat for {SILENCE.seconds} s: the run has died")],
    )  # fmt: skip


def tell_crashed(blocks: list[Any]) -> AutomationCore:
    """Tell people of runs that crashed: nobody was left in them to tell."""
    return AutomationCore(
        name="mailarchiver: tell crashed runs",
        description="What no run can tell itself: that it died.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed"}, match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=RUNS_OF_OURS, for_each={"prefect.resource.id"}, posture=Posture.Reactive, threshold=1,
        ),
        actions=_notifications(blocks),
    )  # fmt: skip


def tell_late(blocks: list[Any], patience: timedelta = PATIENCE) -> AutomationCore:
    """Tell people of runs that did not begin within an hour: no worker is there, or another run holds its queue for too long."""
    return AutomationCore(
        name="mailarchiver: tell late runs",
        description="What no run can tell itself: that it never began.",
        trigger=EventTrigger(
            after={"prefect.flow-run.Late"}, expect={"prefect.flow-run.Running", *ENDED}, match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=RUNS_OF_OURS, for_each={"prefect.resource.id"}, posture=Posture.Proactive, threshold=1, within=patience,
        ),
        actions=_notifications(blocks),
    )  # fmt: skip


def _notifications(blocks: list[Any]) -> list[ActionTypesOrUnknown]:
    return [
        SendNotification(
            block_document_id=block,
            # A run that never began has no name yet but the two words that Prefect made up.
            subject="mailarchiver-backup: {{ deployment.name }} of {{ flow_run.parameters.installation }} is {{ flow_run.state.name }}",
            body="The run {{ flow_run.name }} of {{ flow_run.expected_start_time }} is {{ flow_run.state.name }}. {{ flow_run.state.message or '' }}",
        )
        for block in blocks
    ]


def save_blocks(client: SyncPrefectClient, targets: Sequence[Webhook]) -> list[Any]:
    """Keep the addresses as Prefect's blocks, encrypted and shown to nobody; drop former ones, return the blocks' ids."""
    ids = []
    for number, target in enumerate(targets, 1):
        block = CustomWebhookNotificationBlock(
            name="mailarchiver-backup", url="{{address}}", method="POST", json_data=target.body, secrets=SecretDict({"address": target.url}), headers=None, cookies=None
        )  # fmt: skip
        ids.append(block.save(f"{BLOCK}-{number}", overwrite=True))
    for document in client.read_block_documents_by_type(CustomWebhookNotificationBlock.get_block_type_slug()):
        if re.fullmatch(rf"{BLOCK}-\d+", document.name or "") and document.id not in ids:
            client.delete_block_document(document.id)
    return ids


def replace_automation(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Create an automation in place of the one of its name; one that would do nothing is only removed."""
    for found in client.read_automations_by_name(wanted.name):
        client.delete_automation(found.id)
    if wanted.actions:
        client.create_automation(wanted)


def reconcile(client: SyncPrefectClient, prefect_file: Path) -> None:
    """Bring the server to what a rendered prefect.yaml and the settings say; print what went."""
    content = yaml.safe_load(read_outside(prefect_file, SETTINGS)[0])
    wanted = {
        each["name"]: {schedule["slug"] for schedule in each.get("schedules", [])} for each in content["deployments"]
    }
    for line in remove_unwanted(client, wanted):
        sys.stdout.write(plain(f"removed {line}") + "\n")
    settings = load_settings()
    targets = {each.name for one in settings.installations.values() for each in one.copies}
    tighten_parameters(client, list(settings.installations), sorted(targets))
    limit_queues(client, content["definitions"]["work_pool"]["name"])
    replace_automation(client, crash_zombies())
    blocks = save_blocks(client, webhooks(settings))
    replace_automation(client, tell_crashed(blocks))
    replace_automation(client, tell_late(blocks))
