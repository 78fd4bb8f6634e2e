"""A container restored under a new name, beside whatever is there: never over anything, without a network unless that is said."""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.adapters.archive.archive_source import source_of
from tasks.adapters.archive.reader import check_while, recorded_archive
from tasks.adapters.guests import lxc
from tasks.adapters.guests.files import bring_to_disk, listing_of, rename_host
from tasks.adapters.guests.tar import require_tar, unpacked
from tasks.adapters.host.files import (
    free_space,
    fsync_directory,
    remove_tree,
    rename_no_replace,
    write_atomically,
)
from tasks.adapters.host.journals import Journal, open_journal
from tasks.core.archive.layout import CONTAINER_CONFIG, CONTAINER_FILES, CONTAINER_LISTING
from tasks.core.archive.system_contents import GuestFacts
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.errors import ArchiveDamaged, BackupError, Refused, UsageError
from tasks.core.guests.container_config import Rewritten, rewrite_config
from tasks.core.guests.listing import differences
from tasks.core.policy.guest_names import GUEST_NAME
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.guests.back_up_container import lxc_of
from tasks.guests.find_guest_backup import find_guest_backup
from tasks.guests.power import ContainerPower, Power
from tasks.progress import progress
from tasks.recovery.journalled import journalled
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "lxc-restore"
CONFIG_LIMIT_BYTES = 1 << 20
ROOT_NAME = "rootfs"


@dataclass(frozen=True, slots=True)
class RestoredGuest:
    """A guest that was restored: of which backup, under which name and where, and what is to be known of it."""

    backup: str
    subject: str
    name: str
    place: str
    files: int
    seconds: float
    started: bool
    notes: tuple[str, ...]


# Not retried: what a try has begun it takes away itself.
@step(name="restore container", run_name="restore {backup} as {name}", retries=0)
def restore_container(
    config: InstallationConfig, backup: str, name: str, *, with_network: bool, start: bool, foreign: bool = False
) -> RestoredGuest:
    """Restore a container's backup under a name that is free, prove its files equal to those that were backed up, and start it if asked.

    It gets its name last of all; whatever ends us before, nothing of it stays.
    """
    begun, place = time.monotonic(), lxc_of(config).path
    lxc.require_lxc()
    require_tar()
    path, record, guest = find_guest_backup(config, "lxc", backup, foreign=foreign)
    _require_free(place, name, guest)
    archive = recorded_archive(source_of(path))
    if archive is None:
        raise ArchiveDamaged(f"{path.name} is not the file that its record describes", hint="take another backup")
    body = {"place": str(place), "name": name, "mark": secrets.token_hex(8)}
    target, building = place / name, _building(body)
    journal = open_journal(KIND, body, installation_id=config.id, installation_directory=config.directory)
    with journalled(journal, lambda: _take_away(building)):
        building.mkdir(mode=0o700)
        (building / ROOT_NAME).mkdir(mode=0o755)
        taken = _Taken(building / ROOT_NAME)
        with progress(f"restore of {name}", expected_bytes=archive.unpacked_bytes or None) as tell:
            taken.tell = tell
            check_while(archive, taken.take)
        taken.require_whole()
        notes = ("its /etc/hostname has the new name",) if rename_host(taken.root, guest.name, name) else ()
        rewritten = _config_of(taken, name, target / ROOT_NAME, guest, with_network=with_network)
        _write_config(building, rewritten)
        if rewritten.has_mapped_ids:
            building.chmod(0o711)  # the root of such a container is nobody here, and has to get through
        rename_no_replace(building, target)
        fsync_directory(place)
    logger.info("Restored %s as %s in %s", record.manifest.name, name, place)
    if start:
        started(ContainerPower(place, name))
    return RestoredGuest(
        record.manifest.name, record.manifest.subject, name, str(target), guest.entries, time.monotonic() - begun, start,
        (*rewritten.notes, *notes, *(f"not in the backup: {each}" for each in guest.left_out)),
    )  # fmt: skip


def started(power: Power) -> None:
    """Start a guest that was restored; raise BackupError, which tells that it is there, where it does not start."""
    try:
        power.start()
    except BackupError as error:
        raise BackupError(f"{power} was restored, but does not start: {error.message}", hint=error.hint) from error


def settle(journal: Journal) -> str:
    """Take away what a dead run has begun to restore; what has its name already is whole, and stays."""
    building = _building(journal.body)
    if not building.exists():
        return f"nothing was left of a restore of {journal.body['name']}"
    _take_away(building)
    return f"took the half-restored container {journal.body['name']} away"


def _building(body: Mapping[str, Any]) -> Path:
    """Name the directory that a container is restored in before it gets its own."""
    return Path(body["place"]) / f".{body['name']}.restoring-{body['mark']}"


class _Taken:
    """What is taken of the archive while it is checked; nothing of it counts before the check is over."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = b""
        self.listing: list[bytes] = []
        self.tell: Callable[[int], None] = lambda _: None
        self._unpacked = False

    def take(self, entry: TarEntry, name: str, pieces: Iterator[bytes]) -> None:
        """Take one member."""
        if entry.is_directory:
            return
        if name == CONTAINER_CONFIG and entry.size <= CONFIG_LIMIT_BYTES:
            self.config = b"".join(pieces)
        elif name == CONTAINER_LISTING:
            self.listing = b"".join(pieces).splitlines(keepends=True)
        elif name == CONTAINER_FILES:
            with unpacked(self.root) as unpacking:
                unpacking.write(self._counted(pieces))
            self._unpacked = True

    def require_whole(self) -> None:
        """Raise BackupError unless every file is there and is what it was when it was backed up."""
        if not self._unpacked or not self.listing or not self.config:
            raise ArchiveDamaged("the backup does not hold a container's files, their list and its configuration")
        if found := differences(self.listing, listing_of(self.root).lines):
            raise BackupError(
                f"the restored files are not those that were backed up: {found}",
                hint="does the file system below lxc.path keep ACLs and extended attributes? nothing was left of it",
            )

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        count = 0
        for piece in pieces:
            count += len(piece)
            self.tell(count)
            yield piece


def _require_free(place: Path, name: str, guest: GuestFacts) -> None:
    if not re.fullmatch(GUEST_NAME, name):
        raise UsageError(f"{name!r} is no name for a container", hint=f"it must match {GUEST_NAME}")
    if not place.is_dir():
        raise UsageError(f"there is no directory {place} for containers", hint="`lxc.path` of the settings names it")
    if os.path.lexists(place / name):
        raise Refused(f"{place / name} exists already, and nothing is restored over it", hint="choose another --name")
    free_bytes, free_inodes = free_space(place)
    require_room(
        Need(f"the container {name}", str(place), guest.bytes + MARGIN_BYTES, guest.entries + 16),
        free_bytes=free_bytes, free_inodes=free_inodes,
    )  # fmt: skip


def _take_away(building: Path) -> None:
    if building.exists():
        remove_tree(building)
        fsync_directory(building.parent)


def _config_of(taken: _Taken, name: str, root: Path, guest: GuestFacts, *, with_network: bool) -> Rewritten:
    return rewrite_config(
        taken.config.decode("utf-8", "surrogateescape"), name=name, root=PurePosixPath(root), former_place=PurePosixPath(guest.place or f"/{guest.name}"),
        with_network=with_network, new_mac=lambda: ":".join(["00", "16", "3e", *(f"{each:02x}" for each in secrets.token_bytes(3))]),
    )  # fmt: skip


def _write_config(target: Path, rewritten: Rewritten) -> None:
    """Make the container known to LXC, with everything below on the disk before."""
    bring_to_disk(target)
    write_atomically(target / "config", rewritten.text.encode("utf-8", "surrogateescape"))
