"""One virtual machine's backup: looked at before, shut down, its definition and disks copied, and running again before the archive is read back."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.archive.writer import PartialArchive, segment
from tasks.adapters.guests import libvirt
from tasks.adapters.guests.tar import packed_disk, require_tar
from tasks.adapters.host.files import free_space
from tasks.core.archive.layout import MACHINE_DEFINITION, MACHINE_DISK
from tasks.core.archive.system_contents import GuestDisk, GuestFacts
from tasks.core.errors import BackupError, Refused, UsageError
from tasks.core.guests.former_state import Former
from tasks.core.guests.machine import Disk, disks_of
from tasks.core.policy.guest_settings import Vm
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.core.units import duration_text
from tasks.guests.back_up_container import Copied
from tasks.guests.guest_loan import state_kept
from tasks.guests.power import MachinePower
from tasks.progress import progress
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FitMachine:
    """A virtual machine that may be backed up: its definition, its disks, its former state, and what is no part of the backup."""

    name: str
    xml: str
    disks: tuple[Disk, ...]
    former: Former
    bytes: int
    left_out: tuple[str, ...]


def vm_of(config: InstallationConfig) -> Vm:
    """Give the section of the settings; raise Refused where there is none."""
    if config.settings.vm is None:
        raise Refused(
            f"the settings of {config.id} name no virtual machines",
            hint="add the section `vm`: see the settings that `init` writes",
        )
    return config.settings.vm


def chosen_machines(config: InstallationConfig, name: str) -> tuple[str, ...]:
    """Give the machines of the settings, or the one of this name; raise UsageError for one that they do not name."""
    known = vm_of(config).domains
    if name and name not in known:
        raise UsageError(
            f"the settings of {config.id} name no virtual machine {name!r}", hint=f"known: {', '.join(known)}"
        )
    return (name,) if name else known


@step(name="look at machine", run_name="look at machine {name}", retries=2)
def look_at_machine(config: InstallationConfig, name: str) -> FitMachine:
    """Look whether a virtual machine can be backed up: known to libvirt, running or off, its disks files that stand alone, and room for them.

    Nothing is stopped.
    """
    uri = vm_of(config).uri
    libvirt.require_libvirt()
    require_tar()
    found = libvirt.domain_now(uri, name)
    if found.seen.state not in ("running", "stopped"):
        raise Refused(
            f"the virtual machine {name} is {found.word}: only one that runs or is shut off is backed up",
            hint=f"`virsh -c {uri} resume {name}` lets a paused one go on",
        )
    if not found.is_persistent:
        raise Refused(
            f"the virtual machine {name} is transient: libvirt forgets it once it is shut down",
            hint=f"`virsh -c {uri} dumpxml {name} > FILE`, then `virsh -c {uri} define FILE`",
        )
    if found.has_saved_memory:
        raise Refused(
            f"the memory of the virtual machine {name} was saved: its disks alone are of no moment at which it was at rest",
            hint=f"start it, and it goes on from there: virsh -c {uri} start {name}",
        )
    xml = libvirt.domain_xml(uri, name)
    disks, left_out = disks_of(xml, name)
    disks = tuple(replace(each, file=PurePosixPath(Path(each.file).resolve())) for each in disks)
    size = sum(_require_alone(each, name) for each in disks)
    require_repository(config.repository)
    free_bytes, free_inodes = free_space(config.repository)
    require_room(
        Need(f"the archive of the virtual machine {name}", str(config.repository), size + size // 50 + MARGIN_BYTES),
        free_bytes=free_bytes, free_inodes=free_inodes, minimum_free_bytes=config.settings.minimum_free_bytes,
    )  # fmt: skip
    former: Former = "running" if found.seen.state == "running" else "stopped"
    return FitMachine(name, xml, disks, former, size, left_out)


# Not retried: a second backup of the same night would stop the machine again.
@step(name="copy machine", run_name="copy machine {fit.name}", retries=0)
def copy_machine(config: InstallationConfig, archive: PartialArchive, fit: FitMachine) -> Copied:
    """Shut a virtual machine down, copy its definition and disks, and see it in its former state again, whatever happens."""
    wanted = vm_of(config)
    with state_kept(config, MachinePower(wanted.uri, fit.name), fit.former) as loan:
        loan.stop(wanted)
        at, begun = datetime.now(UTC), time.monotonic()
        if libvirt.domain_xml(wanted.uri, fit.name) != fit.xml:
            raise BackupError(
                f"the definition of {fit.name} changed while it was shut down", hint="try again", transient=True
            )
        with (
            progress(f"copy of {fit.name}", expected_bytes=fit.bytes or None) as tell,
            segment(archive, "machine", on_bytes=lambda raw, _: tell(raw)) as part,
        ):
            part.add_bytes(MACHINE_DEFINITION, fit.xml.encode(), mtime=at)
            for disk in fit.disks:
                stream = packed_disk(Path(disk.file), limit_seconds=wanted.limit_hours * 3600)
                part.add_stream(f"{MACHINE_DISK}{disk.target}.tar", stream, mtime=at)
        disks = [
            GuestDisk(
                target=each.target,
                file=each.file.name,
                format="qcow2" if each.format == "qcow2" else "raw",
                bytes=Path(each.file).stat().st_size,
            )
            for each in fit.disks
        ]
        loan.require_stopped()
        loan.give_back()
        logger.info("Copied %s in %s", fit.name, duration_text(time.monotonic() - begun))
    facts = GuestFacts(name=fit.name, entries=len(disks), bytes=fit.bytes, disks=disks, left_out=list(fit.left_out))
    return Copied(facts, at, loan.downtime_seconds)


def _require_alone(disk: Disk, name: str) -> int:
    """Give what a disk takes on this host's disk; raise Refused where it is not there, or builds on another file."""
    file = Path(disk.file)
    if not file.is_file():
        raise Refused(
            f"the disk {disk.target} of the virtual machine {name} is no file: {file}",
            hint="is its file system mounted?",
        )
    if disk.format != "raw" and (below := libvirt.backing_file(file, disk.format)):
        raise Refused(
            f"the disk {disk.target} of the virtual machine {name} builds on another image, {below}",
            hint=f"`virsh blockcommit` or `virsh blockpull` makes one of both; or `qemu-img rebase -b '' {file}` while it is off",
        )
    return file.stat().st_blocks * 512
