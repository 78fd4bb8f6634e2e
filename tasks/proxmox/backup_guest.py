"""One guest's backup: looked at before, followed to its end, and proven by the volume that is there afterwards."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tasks.adapters.host.virtual import runs_in
from tasks.adapters.proxmox import virtual_environment as pve
from tasks.adapters.proxmox.session import Session, session
from tasks.core.errors import BackupError, Refused
from tasks.core.policy.proxmox_settings import STOP_REASONS, Proxmox
from tasks.core.proxmox.judge_backup import (
    names_this_machine,
    obstacle_of,
    outcome_of,
    troubles_in,
)
from tasks.core.proxmox.replies import Guest, GuestCopy, State
from tasks.proxmox.follow import follow
from tasks.proxmox.guest_loan import GuestLoan, state_kept
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)

TROUBLES_KEPT = 20


@dataclass(frozen=True, slots=True)
class Fit:
    """A guest that may be backed up: its former state, and its backups that are there already."""

    guest: Guest
    former: State
    bytes: int
    copies: tuple[GuestCopy, ...]


@dataclass(frozen=True, slots=True)
class GuestBackup:
    """A guest's new backup; with `warnings` it is kept, and nothing older is removed for it."""

    guest: Guest
    copy: GuestCopy
    seconds: float
    former: State
    warnings: tuple[str, ...] = field(default=())


def proxmox_of(config: InstallationConfig) -> Proxmox:
    """Give the section of the settings; raise Refused where there is none."""
    if config.settings.proxmox is None:
        raise Refused(
            f"the settings of {config.id} name no Proxmox",
            hint="add the section `proxmox`: see the settings that `init` writes",
        )
    return config.settings.proxmox


@contextmanager
def connected(config: InstallationConfig) -> Iterator[Session]:
    """Give a session with the installation's Proxmox VE."""
    with session(proxmox_of(config)) as api:
        yield api


# A node that is down comes back in minutes or not this night.
@step(name="look at guest", run_name="look at guest {vmid}", retries=2)
def look_at_guest(config: InstallationConfig, vmid: int) -> Fit:
    """Look whether a guest can be backed up: found, unlocked, and its storage there, for backups, with room. Nothing is started."""
    wanted = proxmox_of(config)
    with connected(config) as api:
        (guest,) = pve.find_guests(api, [vmid])
        if names_this_machine(guest, wanted.mode, socket.gethostname(), runs_in()):
            raise Refused(
                f"{guest} seems to be the machine that this runs on: its backup in mode {wanted.mode} would end this run",
                hint="run it from another machine, or set `proxmox.mode: snapshot`",
            )
        now = pve.guest_now(api, guest)
        storage = pve.storage_now(api, guest.node, wanted.storage)
        former = pve.backups_of(api, guest, wanted.storage) if "backup" in storage.content and storage.usable else []
        if obstacle := obstacle_of(guest, now, wanted.storage, storage, former):
            raise Refused(obstacle.what, hint=obstacle.hint)
    return Fit(guest, now.state, now.bytes, tuple(former))


# Not retried: a second backup of the same night would stop the guest again.
@step(name="back up guest", run_name="back up guest {fit.guest.vmid}", retries=0)
def back_up_guest(config: InstallationConfig, fit: Fit) -> GuestBackup:
    """Back a guest up and see it in its former state again, whatever happens.

    Raise BackupError where the task failed, did not end in time, or left no backup; then nothing older is removed.
    """
    wanted, guest, begun = proxmox_of(config), fit.guest, time.monotonic()
    if wanted.mode == "stop":
        logger.info("%s is stopped for its backup: %s", guest, "; ".join(STOP_REASONS))
    else:
        logger.warning(
            "%s is backed up in mode %s; the guide asks for stop: %s", guest, wanted.mode, "; ".join(STOP_REASONS)
        )
    with connected(config) as api:
        with state_kept(config, api, guest, fit.former) as loan:
            upid = pve.start_backup(
                api, guest, wanted.storage, mode=wanted.mode, compression=wanted.compression, notes=wanted.notes, protected=wanted.protected
            )  # fmt: skip
            loan.began(upid)
            lines, exit_status = follow(
                api, guest, upid, what=f"backup of {guest}", bytes=fit.bytes, limit_seconds=wanted.limit_hours * 3600,
                hint="it was ended, and the guest brought back; see its log in Proxmox, or raise `proxmox.limit_hours`",
            )  # fmt: skip
            loan.give_back(api)
        return _proven(api, wanted, fit, loan, lines, exit_status, time.monotonic() - begun)


def _proven(
    api: Session, wanted: Proxmox, fit: Fit, loan: GuestLoan, lines: list[str], exit_status: str, seconds: float
) -> GuestBackup:
    """Judge how the task ended, and find what it made: a success that left nothing is none."""
    guest, outcome = loan.guest, outcome_of(exit_status)
    troubles = troubles_in(lines)
    if outcome == "failed":
        why = next((each for each in troubles if each.startswith("ERROR")), troubles[-1] if troubles else "")
        raise BackupError(
            f"the backup of {guest} failed: {exit_status or 'it ended without a word'}{f' ({why})' if why else ''}",
            hint=f"the guest is {fit.former} as before, and nothing was removed; the task's log is in Proxmox on node {guest.node}",
        )
    known = {each.name for each in fit.copies}
    made = [each for each in pve.backups_of(api, guest, wanted.storage) if each.name not in known]
    if not made or not made[0].bytes:
        raise BackupError(
            f"the backup of {guest} ended as {exit_status}, but no new backup is on the storage {wanted.storage}",
            hint="see the task's log in Proxmox; nothing was removed",
        )
    warnings = tuple(troubles[:TROUBLES_KEPT] or [exit_status]) if outcome == "warnings" else ()
    return GuestBackup(guest, made[0], seconds, fit.former, warnings)
