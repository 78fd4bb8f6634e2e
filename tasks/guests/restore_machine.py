"""A virtual machine restored under a new name, beside whatever runs: its network links down unless that is said, its disks beside the others."""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
import uuid as uuids
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.adapters.archive.archive_source import source_of
from tasks.adapters.archive.reader import check_while, recorded_archive
from tasks.adapters.guests import libvirt
from tasks.adapters.guests.files import bring_to_disk
from tasks.adapters.guests.tar import require_tar, unpacked
from tasks.adapters.host.files import free_space, fsync_directory, remove_tree, rename_no_replace, write_atomically
from tasks.adapters.host.journals import Journal, open_journal
from tasks.core.archive.layout import MACHINE_DEFINITION, MACHINE_DISK
from tasks.core.archive.system_contents import GuestDisk, GuestFacts
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.errors import ArchiveDamaged, Refused, UsageError
from tasks.core.guests.machine import rewrite_domain
from tasks.core.policy.guest_names import GUEST_NAME
from tasks.core.policy.guest_settings import Vm
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.guests.back_up_machine import vm_of
from tasks.guests.find_guest_backup import find_guest_backup
from tasks.guests.power import MachinePower
from tasks.guests.restore_container import RestoredGuest, started
from tasks.progress import progress
from tasks.recovery.journalled import journalled
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "vm-restore"
XML_LIMIT_BYTES = 4 << 20


# Not retried: what a try has begun it takes away itself.
@step(name="restore machine", run_name="restore {backup} as {name}", retries=0)
def restore_machine(
    config: InstallationConfig, backup: str, name: str, *, with_network: bool, start: bool, foreign: bool = False
) -> RestoredGuest:
    """Restore a virtual machine's backup under a name that is free, see that its disks are whole, and start it if asked.

    Its disks get their place last of all; whatever ends us before, nothing of them and of its definition stays.
    """
    begun, wanted = time.monotonic(), vm_of(config)
    libvirt.require_libvirt()
    require_tar()
    path, record, guest = find_guest_backup(config, "vm", backup, foreign=foreign)
    _require_free(wanted, name, guest)
    archive = recorded_archive(source_of(path))
    if archive is None:
        raise ArchiveDamaged(f"{path.name} is not the file that its record describes", hint="take another backup")
    body = {
        "uri": wanted.uri, "images": str(wanted.images), "name": name, "uuid": str(uuids.uuid4()), "mark": secrets.token_hex(8),
    }  # fmt: skip
    building, target = _building(body), wanted.images / name
    journal = open_journal(KIND, body, installation_id=config.id, installation_directory=config.directory)
    with journalled(journal, lambda: _take_away(body)):
        # libvirt's own user reads the disks in it, once it has given them to that user.
        building.mkdir(mode=0o711)
        building.chmod(0o711)
        taken = _Taken(building, guest)
        with progress(f"restore of {name}", expected_bytes=archive.unpacked_bytes or None) as tell:
            taken.tell = tell
            check_while(archive, taken.take)
        files = {each.target: PurePosixPath(target / _name_of(each)) for each in taken.whole()}
        xml, notes = rewrite_domain(taken.xml(), name=name, uuid=body["uuid"], files=files, with_network=with_network)
        definition = building / "domain.xml"
        write_atomically(definition, xml.encode())
        bring_to_disk(building)
        libvirt.define(wanted.uri, definition)
        rename_no_replace(building, target)
        fsync_directory(wanted.images)
    logger.info("Restored %s as %s in %s", record.manifest.name, name, target)
    if start:
        started(MachinePower(wanted.uri, name))
    return RestoredGuest(
        record.manifest.name, record.manifest.subject, name, str(target), len(files), time.monotonic() - begun, start,
        (*notes, *(f"not in the backup: {each}" for each in guest.left_out)),
    )  # fmt: skip


def settle(journal: Journal) -> str:
    """Take away what a dead run has begun to restore; what has its place already is whole, and stays."""
    name = journal.body["name"]
    if not _building(journal.body).exists():
        return f"nothing was left of a restore of {name}"
    _take_away(journal.body)
    return f"took the half-restored virtual machine {name} away"


class _Taken:
    """What is taken of the archive while it is checked; nothing of it counts before the check is over."""

    def __init__(self, building: Path, guest: GuestFacts) -> None:
        self.building = building
        self.tell: Callable[[int], None] = lambda _: None
        self._wanted = {f"{MACHINE_DISK}{each.target}.tar": each for each in guest.disks}
        self._xml = b""
        self._taken: list[GuestDisk] = []
        self._count = 0

    def take(self, entry: TarEntry, name: str, pieces: Iterator[bytes]) -> None:
        """Take one member."""
        if entry.is_directory:
            return
        if name == MACHINE_DEFINITION and entry.size <= XML_LIMIT_BYTES:
            self._xml = b"".join(pieces)
        elif disk := self._wanted.get(name):
            place = self.building / f".{disk.target}"
            place.mkdir(mode=0o700)
            with unpacked(place) as unpacking:
                unpacking.write(self._counted(pieces))
            self._taken.append(disk)

    def xml(self) -> str:
        """Give the definition that the archive holds."""
        return self._xml.decode("utf-8", "replace")

    def whole(self) -> list[GuestDisk]:
        """Give the disks, each in its place and found whole; raise ArchiveDamaged where one is missing or is not what was backed up."""
        if not self._xml or len(self._taken) != len(self._wanted) or not self._taken:
            raise ArchiveDamaged("the backup does not hold a machine's definition and all of its disks")
        for each in self._taken:
            place, found = self.building / f".{each.target}", self.building / _name_of(each)
            names = sorted(os.listdir(place))
            if len(names) != 1 or not (place / names[0]).is_file() or (place / names[0]).is_symlink():
                raise ArchiveDamaged(f"what the backup holds of the disk {each.target} is not one file")
            rename_no_replace(place / names[0], found)
            remove_tree(place)
            os.chown(found, 0, 0)
            found.chmod(0o600)
            if found.stat().st_size != each.bytes:
                raise ArchiveDamaged(
                    f"the disk {each.target} has {found.stat().st_size:,} bytes, it had {each.bytes:,}"
                )
            libvirt.require_sound_image(found, each.format)
        return self._taken

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._count += len(piece)
            self.tell(self._count)
            yield piece


def _name_of(disk: GuestDisk) -> str:
    return f"{disk.target}.{disk.format}"


def _require_free(wanted: Vm, name: str, guest: GuestFacts) -> None:
    if not re.fullmatch(GUEST_NAME, name):
        raise UsageError(f"{name!r} is no name for a virtual machine", hint=f"it must match {GUEST_NAME}")
    if not wanted.images.is_dir():
        raise UsageError(
            f"there is no directory {wanted.images} for disks", hint="`vm.images` of the settings names it"
        )
    if os.path.lexists(wanted.images / name):
        raise Refused(
            f"{wanted.images / name} exists already, and nothing is restored over it", hint="choose another --name"
        )
    if libvirt.exists(wanted.uri, name):
        raise Refused(
            f"there is a virtual machine {name} already, and nothing is restored over it", hint="choose another --name"
        )
    free_bytes, free_inodes = free_space(wanted.images)
    require_room(
        Need(f"the virtual machine {name}", str(wanted.images), guest.bytes + MARGIN_BYTES),
        free_bytes=free_bytes, free_inodes=free_inodes,
    )  # fmt: skip


def _building(body: Mapping[str, Any]) -> Path:
    """Name the directory that a machine is restored in before it gets its own."""
    return Path(body["images"]) / f".{body['name']}.restoring-{body['mark']}"


def _take_away(body: Mapping[str, Any]) -> None:
    """Let libvirt forget the machine of our identity, and remove its disks; once they have their place, it is whole and nothing goes."""
    if not (building := _building(body)).exists():
        return
    if libvirt.exists(str(body["uri"]), str(body["uuid"])):
        libvirt.undefine(str(body["uri"]), str(body["uuid"]))
    remove_tree(building)
    fsync_directory(building.parent)
