"""A guest's newest backup, restored beside the guest: chosen, restored under a free id with its network link down, and started."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from tasks.adapters.proxmox import trial_guests as trials
from tasks.adapters.proxmox import virtual_environment as pve
from tasks.adapters.proxmox.guest_shell import AgentShell, NodeCommand, Shell, require_node_shell
from tasks.core.errors import BackupError, NameTaken, Refused
from tasks.core.policy.proxmox_settings import GuestVerification
from tasks.core.proxmox.judge_backup import outcome_of, troubles_in
from tasks.core.proxmox.replies import Guest, GuestCopy
from tasks.core.proxmox.trial import (
    bears,
    disk_bytes,
    is_started_at_boot,
    marked,
    newest_of,
    obstacle_to_trial,
    require_alone,
    unlinked,
)
from tasks.core.units import duration_text
from tasks.proxmox.backup_guest import connected, proxmox_of
from tasks.proxmox.follow import follow
from tasks.proxmox.trial_loan import TrialLoan, removed_afterwards
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)

IDS_TRIED = 10
_POLL_SECONDS = (0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backup of a guest that is tried, and how the restored guest will be reached inside (`address`: its node's, for a container)."""

    guest: Guest
    copy: GuestCopy
    bytes: int
    address: str


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored guest that was not started yet, and how long its restore took."""

    chosen: Chosen
    guest: Guest
    seconds: float


def verification_of(config: InstallationConfig) -> GuestVerification:
    """Give the section of the settings; raise Refused where there is none."""
    wanted = proxmox_of(config).verification
    if wanted is None:
        raise Refused(
            f"the settings of {config.id} do not say where guests' backups are tried",
            hint="add `proxmox.verification` with a storage: see the settings that `init` writes",
        )
    return wanted


# A node that is down comes back in minutes or not this night.
@step(name="choose guest's backup", run_name="choose backup of guest {vmid}", retries=2)
def choose_copy(config: InstallationConfig, vmid: int) -> Chosen:
    """Choose the newest backup of a guest, on whichever storage, and look whether it can be restored and asked inside. Nothing is begun."""
    wanted, within = verification_of(config), proxmox_of(config)
    with connected(config) as api:
        (guest,) = pve.find_guests(api, [vmid])
        storages = pve.backup_storages(api, guest.node, with_servers=True)
        copy = newest_of([each for name in storages for each in pve.backups_of(api, guest, name)])
        if copy is None:
            raise Refused(
                f"there is no backup of {guest} on any storage of node {guest.node} ({', '.join(storages) or 'none takes backups'})",
                hint="take one: `mailarchiver-backup backup proxmox`; the token needs Datastore.Audit on the storage",
            )
        carried = trials.config_of_backup(api, guest.node, copy)
        address = ""
        if guest.kind == "qemu":
            trials.require_agent(carried, guest)
        else:
            address = require_node_shell(wanted.ssh, guest, within.host)
        needed = disk_bytes(carried) or pve.guest_now(api, guest).bytes
        storage = pve.storage_now(api, guest.node, wanted.storage)
        if obstacle := obstacle_to_trial(guest, needed, wanted.storage, storage):
            raise Refused(obstacle.what, hint=obstacle.hint)
    return Chosen(guest, copy, needed, address)


@contextmanager
def restored_guest(config: InstallationConfig, chosen: Chosen) -> Iterator[Restored]:
    """Give the guest, restored under a free id and not started, for the block; it is removed afterwards, whatever happens."""
    wanted = verification_of(config)
    with connected(config) as api:
        for vmid in islice(trials.free_ids(api, wanted.ids), IDS_TRIED):
            with removed_afterwards(config, api, chosen.guest, vmid) as loan:
                try:
                    restored = restore_guest(config, chosen, loan)
                except NameTaken as taken:
                    logger.info("%s; trying the next one", taken.message)
                    continue
                yield restored
            return
    where = f"{wanted.ids[0]} to {wanted.ids[1]}" if wanted.ids else "Proxmox's next ones"
    raise Refused(
        f"no id is free for a test of a backup: {where} are taken", hint="name other ids in `proxmox.verification.ids`"
    )


# Not retried: what is left of the first attempt is removed when the loan ends.
@step(name="restore guest", run_name="restore guest {chosen.guest.vmid} as {loan.guest.vmid}", retries=0)
def restore_guest(config: InstallationConfig, chosen: Chosen, loan: TrialLoan) -> Restored:
    """Restore a backup under the loan's id, and take the links of its network devices down.

    Raise NameTaken where the id was taken meanwhile, BackupError where the restore failed or did not end in time.
    """
    wanted, guest, begun = verification_of(config), loan.guest, time.monotonic()
    logger.info("%s of %s is restored as guest %d", chosen.copy.name, chosen.guest, guest.vmid)
    with connected(config) as api:
        upid = trials.start_restore(
            api, chosen.guest, guest.vmid, chosen.copy, wanted.storage, pool=wanted.pool, mark=loan.mark
        )
        loan.began(upid)
        lines, ended = follow(
            api, guest, upid, what=f"restore of {chosen.guest}", bytes=chosen.bytes, limit_seconds=wanted.limit_hours * 3600,
            hint="it was ended, and what it had made is removed; see its log, or raise `proxmox.verification.limit_hours`",
        )  # fmt: skip
        if outcome_of(ended) == "failed":
            if any(trials.says_taken(each) for each in (ended, *lines)):
                raise NameTaken(f"the id {guest.vmid} was taken meanwhile", hint="another id will do")
            why = next(iter(troubles_in(lines)), "")
            raise BackupError(
                f"the restore of {chosen.copy.name} failed: {ended or 'it ended without a word'}{f' ({why})' if why else ''}",
                hint=f"this backup of {chosen.guest} may be damaged: try another, and see the task's log on node {guest.node}",
            )
        config_now = trials.config_now_of(api, guest)
        changes = unlinked(config_now)
        if not bears(config_now, loan.mark):  # before its version took a description with a restore; the task was ours
            changes["description"] = marked(loan.mark)
        if is_started_at_boot(config_now):
            changes["onboot"] = "0"
        if config_now.get("protection") == "1":
            changes["protection"] = "0"
        if changes:
            trials.change_config(api, guest, changes)
    return Restored(chosen, guest, time.monotonic() - begun)


@step(name="start restored guest", run_name="start guest {restored.guest.vmid}", retries=0)
def start_guest(config: InstallationConfig, restored: Restored) -> None:
    """Read back that no link is up and nothing reaches out of the guest, start it, and wait until programs can be run inside.

    Raise Refused, with the guest not started, where its configuration is not what was asked for.
    """
    guest, limit = restored.guest, verification_of(config).start_seconds
    with connected(config) as api:
        require_alone(str(guest), trials.config_now_of(api, guest), guest.vmid)
        upid = pve.act_on_guest(api, guest, "start")
        _, ended = follow(
            api, guest, upid, what=f"start of {guest}", bytes=0, limit_seconds=limit, hint="see its task log in Proxmox"
        )
        if outcome_of(ended) == "failed":
            raise BackupError(
                f"{guest}, restored from {restored.chosen.copy.name}, does not start: {ended}",
                hint=f"see its task log on node {guest.node}",
            )
    with inside(config, restored) as shell:
        deadline, polls = time.monotonic() + limit, 0
        while not shell.answers():
            if time.monotonic() > deadline:
                what = "its guest agent does not answer" if guest.kind == "qemu" else "`pct exec` runs nothing in it"
                raise BackupError(
                    f"{guest}, restored from {restored.chosen.copy.name}, was started, but {what} after {duration_text(limit)}",
                    hint="does the guest itself start, and its agent with it? raise `proxmox.verification.start_minutes` where it is slow",
                )
            time.sleep(_POLL_SECONDS[min(polls, len(_POLL_SECONDS) - 1)])
            polls += 1


@contextmanager
def inside(config: InstallationConfig, restored: Restored) -> Iterator[Shell]:
    """Give a way to run programs inside a restored guest."""
    wanted, guest = verification_of(config), restored.guest
    with connected(config) as api:
        if guest.kind == "qemu" or wanted.ssh is None:
            yield AgentShell(api, guest)
        else:
            yield NodeCommand(wanted.ssh, restored.chosen.address, guest)
