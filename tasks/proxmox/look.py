"""A look at what others do for the guests: backups, jobs and tasks of Proxmox VE and of its backup servers, remembered for who judges."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from tasks.adapters.proxmox import backup_server as pbs
from tasks.adapters.proxmox import virtual_environment as pve
from tasks.adapters.proxmox.guests_state import read_guests_seen, write_guests_seen
from tasks.adapters.proxmox.session import Session, session
from tasks.core.errors import BackupError
from tasks.core.policy.proxmox_settings import BackupServer, Proxmox
from tasks.core.proxmox.replies import GuestCopy
from tasks.core.proxmox.seen import COPIES_KEPT, GuestsSeen, SeenCopy, SeenJob, last_tasks
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
TASKS_SINCE = timedelta(days=60)


# Not retried: the next look comes within the hour, and what stood in the way is remembered and told.
@step(name="look at guests' backups", retries=0)
def look_at_guests(config: InstallationConfig, now: datetime) -> GuestsSeen | None:
    """Look at every place that the settings name, and remember what is there; None where they name no Proxmox.

    A place that cannot be looked at keeps what was seen there before, and the reason is remembered; nothing is raised for it.
    """
    wanted = config.settings.proxmox
    if wanted is None:
        return None
    look = _Look(read_guests_seen(config.id), wanted, now)
    look.at(f"{wanted.host}:{wanted.port}", lambda: look.proxmox(wanted))
    for server in wanted.backup_servers:
        look.at(server.place, lambda server=server: look.backup_server(server))  # type: ignore[misc]
    seen = look.seen()
    try:
        write_guests_seen(config.id, seen)
    except BackupError as error:
        logger.warning("what was seen of guests' backups is not remembered: %s", error.message)
    return seen


class _Look:
    """One look: what was seen before gives way, place by place, to what is seen now."""

    def __init__(self, before: GuestsSeen, wanted: Proxmox, now: datetime) -> None:
        self.wanted, self.now = wanted, now
        self.names = dict(before.names)
        self.copies = {
            place: [each for each in before.copies if each.place == place]
            for place in {each.place for each in before.copies}
        }
        self.tasks = {
            place: [each for each in before.tasks if each.place == place]
            for place in {each.place for each in before.tasks}
        }
        self.jobs, self.uncovered = list(before.jobs), before.uncovered
        self.errors: dict[str, str] = {}

    def at(self, place: str, look: Callable[[], None]) -> None:
        """Look at a place; what is wrong with it is remembered."""
        try:
            look()
        except BackupError as error:
            logger.warning("%s", error.message)
            self.errors[place] = error.message

    def proxmox(self, wanted: Proxmox) -> None:
        """Look at a Proxmox VE: the guests' backups on every storage, the tasks, the jobs."""
        with session(wanted, timeout_seconds=LOOK_SECONDS) as api:
            guests = pve.find_guests(api, wanted.guests)
            found: dict[str, list[SeenCopy]] = {}
            for guest in guests:
                for storage in pve.backup_storages(api, guest.node, with_servers=not wanted.backup_servers):
                    found.setdefault(storage, []).extend(_copies(storage, pve.backups_of(api, guest, storage)))
            since = int((self.now - TASKS_SINCE).timestamp())
            nodes = sorted({each.node for each in guests})
            tasks = [each for node in nodes for each in pve.backup_tasks(api, node, since)]
            self._jobs(api, wanted)
        # All was seen: a storage that is gone, or takes no backups any more, has none.
        servers = {each.place for each in wanted.backup_servers}
        self.copies = {place: some for place, some in self.copies.items() if place in servers} | found
        self.tasks = {place: some for place, some in self.tasks.items() if place in servers}
        self.tasks[api.where] = last_tasks(api.where, tasks, wanted.guests)
        self.names |= {str(each.vmid): each.name for each in guests}

    def backup_server(self, server: BackupServer) -> None:
        """Look at a backup server: the guests' snapshots in its datastore, and its tasks."""
        with session(server, timeout_seconds=LOOK_SECONDS) as api:
            copies = _copies(server.place, pbs.snapshots_of(api, server, self.wanted.guests))
            self.copies[server.place] = copies
            found = pbs.tasks_of(api, server, int((self.now - TASKS_SINCE).timestamp()))
            self.tasks[server.place] = last_tasks(server.place, found, self.wanted.guests)

    def seen(self) -> GuestsSeen:
        """Give all that is known now."""
        return GuestsSeen(
            looked_at=self.now, names=self.names, copies=[each for some in self.copies.values() for each in some],
            tasks=[each for some in self.tasks.values() for each in some], jobs=self.jobs, uncovered=self.uncovered, errors=self.errors,
        )  # fmt: skip

    def _jobs(self, api: Session, wanted: Proxmox) -> None:
        """Ask for the jobs, and for guests that none of them names; that wants a privilege which the token need not have."""
        try:
            self.jobs = [
                SeenJob(
                    id=each.id,
                    mode=each.mode,
                    enabled=each.enabled,
                    guests=[one for one in wanted.guests if each.covers(one)],
                )
                for each in pve.backup_jobs(api)
                if any(each.covers(one) for one in wanted.guests)
            ]
            self.uncovered = sorted(set(pve.not_backed_up(api)) & set(wanted.guests))
        except BackupError as error:
            if error.transient:
                raise
            self.jobs, self.uncovered = [], None


def _copies(place: str, found: Sequence[GuestCopy]) -> list[SeenCopy]:
    return [
        SeenCopy(
            guest=each.vmid, place=place, name=each.name, at=each.at, bytes=each.bytes, protected=each.protected, verification=each.verification
        )
        for each in found[:COPIES_KEPT]
    ]  # fmt: skip
