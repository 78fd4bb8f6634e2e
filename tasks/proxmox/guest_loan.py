"""A guest whose backup stops it, and its way back, whatever happens.

Before the backup begins, a journal of the guest's state is on the disk and a watchdog stands by, as for stopped services. A run
that ends or dies before its backup has ended takes that backup back: it ends the task and brings the guest to its former state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tasks.adapters.host.deferred_signals import signals_deferred
from tasks.adapters.host.journals import Journal, OpenJournal
from tasks.adapters.host.watchdog_link import WatchdogLink, watched_journal
from tasks.adapters.proxmox import virtual_environment as pve
from tasks.adapters.proxmox.session import Session, session
from tasks.core.errors import BackupError, Refused
from tasks.core.proxmox.judge_backup import Action, way_back
from tasks.core.proxmox.replies import Guest, GuestNow, State
from tasks.run.config import InstallationConfig
from tasks.run.context import config_of

logger = logging.getLogger(__name__)

KIND = "proxmox-guest"
# A cancelled Prefect run is killed 30 s after it was asked to end: hand over to the watchdog before that.
GIVE_BACK_SECONDS = 20.0
SETTLING_SECONDS = 15.0
# A request that the server had only just received when its sender was killed has surely been begun after this time.
LATE_SECONDS = 2.0
_POLL_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class GuestLoan:
    """A guest that may be stopped for its backup. Made by `state_kept` only."""

    def __init__(
        self, guest: Guest, former: State, journal: OpenJournal, body: Mapping[str, Any], watchdog: WatchdogLink
    ) -> None:
        self.guest, self.former = guest, former
        self._journal, self._body, self._watchdog = journal, dict(body), watchdog
        self._over = False

    def began(self, upid: str) -> None:
        """Note which task works on the guest; on the disk before the return."""
        self._body["upid"] = upid
        self._journal.rewrite(self._body)

    def give_back(self, api: Session) -> None:
        """Bring the guest to its former state; a second call does nothing. Where it does not succeed, the watchdog goes on."""
        with signals_deferred():
            if self._over:
                return
            try:
                bring_back(
                    api, self.guest.vmid, self.former, str(self._body["upid"]), self.guest.node, GIVE_BACK_SECONDS
                )
                self._journal.remove()
                self._watchdog.release()
            finally:
                self._over = True
                self._journal.abandon()
                self._watchdog.close()


@contextmanager
def state_kept(config: InstallationConfig, api: Session, guest: Guest, former: State) -> Iterator[GuestLoan]:
    """Give a guest its former state back at the end of the block, however that comes."""
    body = {
        "reason": f"a backup of {guest}", "host": api.where, "node": guest.node, "guest": guest.vmid, "guest_kind": guest.kind,
        "former": former, "upid": "",
    }  # fmt: skip
    journal, watchdog = watched_journal(KIND, body, installation_id=config.id, installation_directory=config.directory)
    loan = GuestLoan(guest, former, journal, body, watchdog)
    try:
        yield loan
    except BaseException as error:
        try:
            loan.give_back(api)
        except BackupError as second:
            error.add_note(f"Then bringing {guest} back failed: {second}")
        raise
    else:
        loan.give_back(api)


def settle(journal: Journal) -> str:
    """End the backup of a dead run and bring its guest to its former state, and say what that took.

    Server and token are those of the settings; a journal alone sends nothing anywhere.
    """
    body = journal.body
    config = config_of(journal.installation_id)
    wanted = config.settings.proxmox
    if wanted is None or f"{wanted.host}:{wanted.port}" != body["host"] or body["guest"] not in wanted.guests:
        raise BackupError(
            f"a run had begun to back up guest {body['guest']} of the Proxmox at {body['host']}, which the settings of {config.id} no longer name",
            hint="see there whether the guest runs, and start it by hand; then remove the journal " + str(journal.path),
        )
    with session(wanted, timeout_seconds=SETTLING_SECONDS) as api:
        done = bring_back(api, body["guest"], body["former"], str(body["upid"]), str(body["node"]), SETTLING_SECONDS)
        time.sleep(LATE_SECONDS)
        done += bring_back(api, body["guest"], body["former"], str(body["upid"]), str(body["node"]), SETTLING_SECONDS)
    return f"guest {body['guest']}: {', '.join(done) or 'it was in its former state'}"


def bring_back(api: Session, vmid: int, former: State, upid: str, node: str, patience_seconds: float) -> list[str]:
    """End what still backs the guest up for us on the node, and take the way back to its former state; return what was done.

    Raise BackupError where it is not there when patience ends.
    """
    deadline = time.monotonic() + patience_seconds
    (guest,) = pve.find_guests(api, [vmid])
    done: list[str] = []
    for each in _at_work(api, guest, upid, node):
        logger.warning("Ending the backup of %s", guest)
        pve.stop_task(api, node, each)
        _await(api, guest, node, each, deadline)
        done.append("ended its backup")
    while True:
        try:
            now = pve.guest_now(api, guest)
            action = way_back(former, now.state)
            if action is None:
                return done
            if now.lock:
                raise _locked(guest, former, now, action)
            _await(api, guest, guest.node, pve.act_on_guest(api, guest, action), deadline)
            done.append(f"{action} {guest}")
        except BackupError as error:
            # Its lock may end a moment after the task, and somebody else may be quicker with the same step.
            if isinstance(error, Refused) or time.monotonic() + _RETRY_SECONDS > deadline:
                raise
            logger.info("%s; trying again", error.message)
            time.sleep(_RETRY_SECONDS)
        if time.monotonic() > deadline:
            raise BackupError(
                f"{guest} does not come back to its former state ({former}); it is {pve.guest_now(api, guest).state}",
                hint="see its task log in Proxmox, and start it by hand",
                transient=True,
            )


def _locked(guest: Guest, former: State, now: GuestNow, action: Action) -> BackupError:
    unlock = f"{'pct' if guest.kind == 'lxc' else 'qm'} unlock {guest.vmid}"
    return BackupError(
        f"{guest} is {now.state}, was {former}, and is locked ({now.lock})",
        hint=f"see what works on it; then on node {guest.node}: `{unlock}`, and {action} it",
        transient=True,
    )


def _at_work(api: Session, guest: Guest, upid: str, node: str) -> list[str]:
    """List our backups of the guest that still run. A run that died between its request and the answer knows no id of its own."""
    if not upid:
        return pve.our_running_backups(api, guest, node)
    try:
        return [upid] if pve.task_now(api, node, upid).running else []
    except BackupError as error:
        if error.transient:
            raise
        return pve.our_running_backups(api, guest, node)  # a task that Proxmox has forgotten


def _await(api: Session, guest: Guest, node: str, upid: str, deadline: float) -> None:
    while pve.task_now(api, node, upid).running:
        if time.monotonic() > deadline:
            raise BackupError(
                f"a task on {guest} does not end: {upid}",
                hint="see it in Proxmox under Tasks, and stop it there",
                transient=True,
            )
        time.sleep(_POLL_SECONDS)
