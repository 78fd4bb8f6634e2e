"""A guest restored to be looked at, and its removal, whatever happens.

Before Proxmox is asked to make it, a journal of its id and mark is on the disk and a watchdog stands by. A run that ends or dies has it
removed: the restore that still runs is ended, and the guest goes where it bears our mark. One without the mark is somebody else's and is
never touched, whatever its id.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tasks.adapters.host.deferred_signals import signals_deferred
from tasks.adapters.host.journals import Journal, OpenJournal
from tasks.adapters.host.watchdog_link import WatchdogLink, watched_journal
from tasks.adapters.proxmox import trial_guests as trials
from tasks.adapters.proxmox import virtual_environment as pve
from tasks.adapters.proxmox.session import Session, session
from tasks.core.errors import BackupError, Refused
from tasks.core.proxmox.judge_backup import outcome_of
from tasks.core.proxmox.replies import Guest
from tasks.core.proxmox.trial import bears
from tasks.proxmox.guest_loan import GIVE_BACK_SECONDS, LATE_SECONDS, SETTLING_SECONDS
from tasks.run.config import InstallationConfig
from tasks.run.context import config_of

logger = logging.getLogger(__name__)

KIND = "proxmox-trial"
# Disks of terabytes are not gone in a moment.
REMOVAL_SECONDS = 1800.0
_POLL_SECONDS = 0.3


class TrialLoan:
    """The id that a restored guest has, or is about to have. Made by `removed_afterwards` only."""

    def __init__(self, guest: Guest, journal: OpenJournal, body: Mapping[str, Any], watchdog: WatchdogLink) -> None:
        self.guest, self.mark = guest, str(body["mark"])
        self._journal, self._body, self._watchdog = journal, dict(body), watchdog
        self._over = False

    def began(self, upid: str) -> None:
        """Note which task restores the guest; on the disk before the return."""
        self._body["upid"] = upid
        self._journal.rewrite(self._body)

    def give_back(self, api: Session, patience_seconds: float) -> None:
        """Have the guest removed; a second call does nothing. Where it does not succeed, the watchdog goes on."""
        if self._over:
            return
        remove(api, self.guest, self.mark, str(self._body["upid"]), int(self._body["since"]), patience_seconds)
        self._over = True
        self._journal.remove()
        self._watchdog.release()
        self._let_go()

    def leave_to_watchdog(self) -> None:
        """Let the watchdog go on."""
        if not self._over:
            self._over = True
            self._let_go()

    def _let_go(self) -> None:
        self._journal.abandon()
        self._watchdog.close()


@contextmanager
def removed_afterwards(config: InstallationConfig, api: Session, of: Guest, vmid: int) -> Iterator[TrialLoan]:
    """Have the guest that is restored under an id removed at the end of the block, however that comes."""
    guest = Guest(vmid, of.kind, of.node, "")
    body = {
        "reason": f"a test of a backup of {of}", "host": api.where, "node": of.node, "guest": vmid, "guest_kind": of.kind,
        "mark": secrets.token_hex(16), "upid": "", "since": int(time.time()),
    }  # fmt: skip
    journal, watchdog = watched_journal(KIND, body, installation_id=config.id, installation_directory=config.directory)
    loan = TrialLoan(guest, journal, body, watchdog)
    try:
        try:
            yield loan
            loan.give_back(api, REMOVAL_SECONDS)
        except BaseException as error:
            try:
                with signals_deferred():
                    loan.give_back(api, GIVE_BACK_SECONDS)
            except BackupError as second:
                error.add_note(f"Then removing {guest} failed: {second}")
            raise
    finally:
        loan.leave_to_watchdog()


def settle(journal: Journal) -> str:
    """Remove the guest that a dead run had restored, and say what that took.

    Server and token are those of the settings; a journal alone sends nothing anywhere.
    """
    body = journal.body
    config = config_of(journal.installation_id)
    wanted = config.settings.proxmox
    guest = Guest(int(body["guest"]), body["guest_kind"], str(body["node"]), "")
    if wanted is None or f"{wanted.host}:{wanted.port}" != body["host"] or guest.vmid in wanted.guests:
        raise BackupError(
            f"a run had restored guest {guest.vmid} of the Proxmox at {body['host']} as a test, which the settings of {config.id} no longer name",
            hint="see there whether it is left, and remove it by hand; then remove the journal " + str(journal.path),
        )
    with session(wanted, timeout_seconds=SETTLING_SECONDS) as api:
        known = (str(body["mark"]), str(body["upid"]), int(body["since"]), SETTLING_SECONDS)
        done = remove(api, guest, *known)
        # What was asked for at the last moment may begin late.
        time.sleep(LATE_SECONDS)
        done += remove(api, guest, *known)
    return f"guest {guest.vmid} of a test: {', '.join(done) or 'it was not there'}"


def remove(api: Session, guest: Guest, mark: str, upid: str, since: int, patience_seconds: float) -> list[str]:
    """End our restore of the id where it runs, and remove the guest where it bears the mark; return what was done.

    Raise BackupError where it is not gone when patience ends, or may be ours and does not bear the mark.
    """
    deadline, done = time.monotonic() + patience_seconds, []
    ours = trials.restores_of(api, guest, since)
    running = {task for task, runs, _ in ours if runs}
    if upid and _runs(api, guest.node, upid):
        running.add(upid)
    for task in sorted(running):
        logger.warning("Ending the restore of %s", guest)
        pve.stop_task(api, guest.node, task)
        _await(api, guest, task, deadline)
        done.append("ended its restore")
    if trials.is_free(api, guest.vmid):
        return done
    config = _config_of(api, guest)
    if config is None or not bears(config, mark):
        _require_not_ours(api, guest, config, since)
        return done
    if pve.guest_now(api, guest).state != "stopped":
        _await(api, guest, pve.act_on_guest(api, guest, "stop"), deadline)
        done.append("stopped it")
    if config.get("protection") == "1":
        trials.change_config(api, guest, {"protection": "0"})
    task = trials.destroy(api, guest)
    _await(api, guest, task, deadline)
    ended = pve.task_now(api, guest.node, task).exit_status
    if outcome_of(ended) == "failed":
        raise BackupError(
            f"removing {guest}, restored as a test, failed: {ended}",
            hint=f"see its task log on node {guest.node}",
            transient=True,
        )
    return [*done, "removed it"]


def _runs(api: Session, node: str, upid: str) -> bool:
    try:
        return pve.task_now(api, node, upid).running
    except BackupError as error:
        if error.transient:
            raise
        return False  # a task that Proxmox has forgotten


def _config_of(api: Session, guest: Guest) -> dict[str, str] | None:
    """Read the guest's configuration; None where it is on another node, of the other kind, or not shown to us: nobody restored that for us."""
    try:
        return trials.config_now_of(api, guest)
    except Refused:
        return None
    except BackupError as error:
        if "does not exist" in error.message:
            return None
        raise


def _require_not_ours(api: Session, guest: Guest, config: dict[str, str] | None, since: int) -> None:
    """Raise BackupError where a guest may be what we had made, and lacks the mark: then a person has to look."""
    ours = trials.restores_of(api, guest, since)
    lock = config.get("lock", "") if config is not None else ""
    # A restore that found the id taken has ended badly, and left what was there.
    if config is None or not ours or not (ours[0][2] or lock == "create"):
        return
    word = "pct" if guest.kind == "lxc" else "qm"
    raise BackupError(
        f"{guest} may be left of a test of a backup, but does not bear its mark{f' and is locked ({lock})' if lock else ''}: it was not touched",
        hint=f"where it is, on node {guest.node}: `{word} unlock {guest.vmid}; {word} destroy {guest.vmid}`",
    )


def _await(api: Session, guest: Guest, upid: str, deadline: float) -> None:
    while pve.task_now(api, guest.node, upid).running:
        if time.monotonic() > deadline:
            raise BackupError(
                f"a task on {guest} does not end: {upid}",
                hint="see it in Proxmox under Tasks, and stop it there",
                transient=True,
            )
        time.sleep(_POLL_SECONDS)
