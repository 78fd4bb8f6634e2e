"""A virtual machine as libvirt describes it: its state, its disks, and its definition rewritten for a second life."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser, fromstring, tostring

from tasks.core.errors import ArchiveDamaged, BackupError, Refused
from tasks.core.guests.former_state import Now, Seen

_STATES: dict[str, Now] = {
    "running": "running", "idle": "running", "in shutdown": "between", "shut off": "stopped", "paused": "other", "crashed": "other",
    "pmsuspended": "other",
}  # fmt: skip
_TARGET = re.compile(r"[a-z][a-z0-9]{0,15}")
_FORMATS = ("qcow2", "raw")
# What of the host a second machine must not take: devices, and directories that both would write.
_OF_THE_HOST = {"hostdev": "a device", "filesystem": "a directory", "redirdev": "a device", "shmem": "shared memory"}
# What only one machine can write or listen at.
_OUTWARD = ("file", "unix", "tcp", "udp", "dev", "pipe")
NVRAM = "nvram"


@dataclass(frozen=True, slots=True)
class DomainNow:
    """What `virsh dominfo` says: the state, libvirt's word for it, whether it is defined for good, and whether its memory was saved."""

    seen: Seen
    word: str
    is_persistent: bool
    has_saved_memory: bool


@dataclass(frozen=True, slots=True)
class Disk:
    """A file that belongs to a machine: how it is called there ("vda"; "nvram" for the memory of its firmware), where it lies, its format."""

    target: str
    file: PurePosixPath
    format: str


def read_domain_info(text: str, name: str) -> DomainNow:
    """Read what `virsh dominfo` says; raise BackupError where anything that is asked for is missing."""
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    word, number = found.get("State", ""), found.get("Id", "")
    persistent, saved = found.get("Persistent", ""), found.get("Managed save", "no")
    if word not in _STATES or not re.fullmatch("-|[0-9]{1,10}", number) or persistent not in ("yes", "no"):
        raise BackupError(
            f"virsh says of {name} what is not understood: {' '.join(text.split())[:200]!r}",
            hint="try `virsh dominfo` by hand",
        )
    return DomainNow(Seen(_STATES[word], number.removeprefix("-")), word, persistent == "yes", saved != "no")


class _WithoutEntities(TreeBuilder):
    """Build a tree of what declares no type and so no entities: libvirt writes none, and every attack by XML begins with one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse."""
        raise ValueError(f"it declares the document type {name[:40]!r}")


def parsed(xml: str) -> Element:
    """Read a machine's definition; raise ArchiveDamaged where it is none."""
    try:
        found = fromstring(xml, parser=XMLParser(target=_WithoutEntities()))
    except (ParseError, ValueError) as error:
        raise ArchiveDamaged(f"the machine's definition is no XML of libvirt's: {error}") from error
    if found.tag != "domain":
        raise ArchiveDamaged(f"the machine's definition is none: it begins with {found.tag[:40]!r}")
    return found


def disks_of(xml: str, name: str) -> tuple[tuple[Disk, ...], tuple[str, ...]]:
    """List the files that a machine's disks are, and in words what belongs to it and is not in its backup.

    Raise Refused for a disk that is no file of the host's: a block device, a network's, a pool's.
    """
    domain = parsed(xml)
    disks: list[Disk] = []
    left_out: list[str] = []
    for each in domain.findall("devices/disk"):
        target = each.find("target").get("dev", "") if each.find("target") is not None else ""  # type: ignore[union-attr]
        source, driver, device = each.find("source"), each.find("driver"), each.get("device", "disk")
        file = source.get("file") if source is not None else None
        if device != "disk":
            left_out += [f"the medium in {target}: {file}"] if file else []
            continue
        kind = driver.get("type", "raw") if driver is not None else "raw"
        if each.get("type") != "file" or file is None or kind not in _FORMATS or not _TARGET.fullmatch(target):
            raise Refused(
                f"the disk {target} of the virtual machine {name} is no qcow2 or raw file ({each.get('type')}, {kind})",
                hint="`virsh blockcopy` or `qemu-img convert` brings it into a file; or back it up by the tools of its storage",
            )
        disks.append(Disk(target, _place(file, name), kind))
    nvram = domain.find("os/nvram")
    if nvram is not None and nvram.text and nvram.text.strip():
        disks.append(Disk(NVRAM, _place(nvram.text.strip(), name), "raw"))
    if not disks:
        raise Refused(f"the virtual machine {name} has no disk that could be backed up", hint="see `virsh domblklist`")
    left_out += [
        f"{what} of the host ({tag})" for tag, what in _OF_THE_HOST.items() if domain.find(f"devices/{tag}") is not None
    ]
    if domain.find("devices/tpm") is not None:
        left_out.append("the state of its TPM")
    if domain.find("devices/disk/encryption") is not None or domain.find("devices/disk/source/encryption") is not None:
        left_out.append("the secret that opens its encrypted disk: libvirt keeps it (`virsh secret-list`)")
    return tuple(disks), tuple(left_out)


def rewrite_domain(
    xml: str, *, name: str, uuid: str, files: Mapping[str, PurePosixPath], with_network: bool
) -> tuple[str, tuple[str, ...]]:
    """Give a machine's definition another name, identity, disks and network addresses; and in words what differs that somebody must know.

    Without `with_network` the links of its network cards are down: the live application in it would log in to the mailboxes of the first one.
    """
    domain = parsed(xml)
    notes: list[str] = []
    for tag in ("name", "uuid", "genid", "title"):
        _drop(domain, tag)
    for number, (tag, text) in enumerate((("name", name), ("uuid", uuid))):
        made = Element(tag)
        made.text = text
        domain.insert(number, made)
    # It must be the machine's own, and is made of it where it is missing.
    for system in domain.findall("sysinfo/system"):
        for entry in [each for each in system.findall("entry") if each.get("name") == "uuid"]:
            system.remove(entry)
    for each in domain.findall("seclabel"):
        domain.remove(each)
    nvram = domain.find("os/nvram")
    if nvram is not None and NVRAM in files:
        nvram.text = str(files[NVRAM])
    devices = domain.find("devices")
    for each in list(devices) if devices is not None else ():
        assert devices is not None
        if each.tag == "disk":
            _rewrite_disk(each, files)
        elif each.tag == "interface":
            _drop(each, "mac", "target", "link")
            if not with_network:
                each.append(Element("link", {"state": "down"}))
        elif each.tag in _OF_THE_HOST:
            devices.remove(each)
            notes.append(f"it does not have {_OF_THE_HOST[each.tag]} of the host that the first one has ({each.tag})")
        elif each.tag in ("serial", "console", "parallel", "channel") and each.get("type") in _OUTWARD:
            if each.tag != "channel":
                each.set("type", "pty")
            _drop(each, "source", "log")
        elif each.tag == "graphics":
            each.set("autoport", "yes")
            for word in ("port", "tlsPort", "websocket", "socket"):
                each.attrib.pop(word, None)
    if not with_network and domain.find("devices/interface") is not None:
        notes.append(
            "the links of its network cards are down: the application in it would log in to the same mailboxes as the first one"
        )
    return tostring(domain, encoding="unicode"), tuple(notes)


def _rewrite_disk(disk: Element, files: Mapping[str, PurePosixPath]) -> None:
    target = disk.find("target")
    found = files.get(target.get("dev", "")) if target is not None and disk.get("device", "disk") == "disk" else None
    _drop(disk, "backingStore", "source" if found is None else "")
    source = disk.find("source")
    if found is not None and source is not None:
        source.attrib.clear()
        source.set("file", str(found))
        for each in source.findall("seclabel"):
            source.remove(each)


def _drop(parent: Element, *tags: str) -> None:
    for tag in filter(None, tags):
        for each in parent.findall(tag):
            parent.remove(each)


def _place(file: str, name: str) -> PurePosixPath:
    place = PurePosixPath(file)
    if not place.is_absolute() or ".." in place.parts or "\n" in file:
        raise Refused(
            f"the file of a disk of the virtual machine {name} is no absolute path: {file[:200]!r}",
            hint="see `virsh domblklist`",
        )
    return place
