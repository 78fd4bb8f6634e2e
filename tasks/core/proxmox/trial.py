"""What is decided about a guest restored to be looked at: under which mark, with no link to any network, and with nothing of others in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.core.errors import Refused
from tasks.core.proxmox.judge_backup import Obstacle
from tasks.core.proxmox.replies import Guest, GuestCopy, Kind, StorageNow, mapping, text
from tasks.core.units import size_text

Config = Mapping[str, str]

CONFIG_LIMIT = 64 << 10
_NET = re.compile(r"net\d{1,3}")
_DISK = re.compile(r"(?:scsi|sata|ide|virtio|efidisk|tpmstate)\d{1,3}|rootfs|mp\d{1,3}")
# A size in a disk's line, as Proxmox writes it.
_SIZE = re.compile(r"(?:^|,)size=(\d{1,12})([KMGT]?)(?:,|$)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Devices and directories of the node, and programs that run there, which the guest that still runs may use at the same time.
_OF_THE_NODE = re.compile(r"(?:hostpci|usb|virtiofs|parallel|dev|ivshmem)\d{0,3}|args|hookscript")
_RAW_OF_THE_NODE = ("lxc.net", "lxc.mount", "lxc.hook", "lxc.include", "lxc.rootfs")
CONTENT: Mapping[Kind, str] = {"qemu": "images", "lxc": "rootdir"}


def marked(mark: str) -> str:
    """Write the description by which a restored guest is known as ours.

    >>> marked("0a1b")
    'A test of a backup by mailarchiver-backup, removed when it has ended. Mark: 0a1b'
    """
    return f"A test of a backup by mailarchiver-backup, removed when it has ended. Mark: {mark}"


def bears(config: Config, mark: str) -> bool:
    """Tell whether a guest is the one that was restored under this mark."""
    return bool(mark) and marked(mark) in config.get("description", "")


def config_now(value: object) -> dict[str, str]:
    """Read a guest's configuration; a container's raw lines stand under their own names."""
    found: dict[str, str] = {}
    for name, each in mapping(value, "a guest's configuration").items():
        if name == "lxc" and isinstance(each, list):
            found |= {
                text(line[0], 200): text(line[1], 1000) for line in each if isinstance(line, list) and len(line) == 2
            }
        elif name != "digest":
            found[text(name, 200)] = each[:CONFIG_LIMIT] if isinstance(each, str) else text(each)
    return found


def config_in(content: object) -> dict[str, str]:
    """Read the configuration that a backup carries: the guest's own, without those of its snapshots.

    >>> config_in("#notes\\nrootfs: local-lvm:vm-101-disk-0,size=8G\\n[before]\\nmemory: 1\\n")
    {'rootfs': 'local-lvm:vm-101-disk-0,size=8G'}
    """
    lines = (content if isinstance(content, str) else "")[:CONFIG_LIMIT].partition("\n[")[0].splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith(("#", "[")))
    return {text(name.strip(), 200): text(value.strip(), 1000) for name, colon, value in pairs if colon}


def disk_bytes(config: Config) -> int:
    """Add up the disks that a backup carries; 0 where it does not say.

    >>> disk_bytes({"scsi0": "a:vm-1-disk-0,size=4G", "scsi1": "a:vm-1-disk-1,backup=0,size=9G", "ide2": "a:iso/x.iso,media=cdrom,size=1G"})
    4294967296
    """
    total = 0
    for name, value in config.items():
        # A mount point of a container is in its backup where it asks for it; a machine's disk unless it asks not to.
        left_out = "backup=0" in value or (name.startswith("mp") and "backup=1" not in value)
        if _DISK.fullmatch(name) and not left_out and "media=cdrom" not in value and (size := _SIZE.search(value)):
            total += int(size[1]) * _UNITS[size[2]]
    return total


def unlinked(config: Config) -> dict[str, str]:
    """Give the network devices with their links down, as a configuration has them.

    >>> unlinked({"net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0,link_down=0", "cores": "2"})
    {'net0': 'virtio=BC:24:11:00:00:01,bridge=vmbr0,link_down=1'}
    """
    return {
        name: ",".join([*(each for each in value.split(",") if not each.startswith("link_down=")), "link_down=1"])
        for name, value in config.items()
        if _NET.fullmatch(name)
    }


def links_up(config: Config) -> list[str]:
    """Name the network devices whose link is not down."""
    return sorted(
        name for name, value in config.items() if _NET.fullmatch(name) and "link_down=1" not in value.split(",")
    )


def ties(config: Config, vmid: int) -> list[str]:
    """Name what reaches out of a restored guest: devices, directories and programs of the node, and disks that are not its own.

    The guest that still runs uses the same ones; two at once would spoil them.
    """
    found = [name for name in config if _OF_THE_NODE.fullmatch(name) and config[name] not in ("spice", "spice,usb3=1")]
    found += [name for name in config if name.startswith(_RAW_OF_THE_NODE)]
    found += [name for name in config if name.startswith("serial") and config[name].startswith("/")]
    found += [
        name
        for name, value in config.items()
        if _DISK.fullmatch(name) and "media=cdrom" not in value and not _is_own(value.partition(",")[0], vmid)
    ]
    return sorted(found)


def _is_own(volume: str, vmid: int) -> bool:
    """Tell whether a disk's volume is named after the guest, as Proxmox names what it makes for one.

    >>> _is_own("local-lvm:vm-9000-disk-0", 9000), _is_own("local:9000/vm-9000-disk-0.qcow2", 9000), _is_own("shared:vm-101-disk-1", 9000)
    (True, True, False)
    """
    volume = volume.removeprefix("volume=").removeprefix("file=")
    return re.search(rf":(?:{vmid}/)?(?:vm|subvol)-{vmid}-[^/]+$", volume) is not None


def is_started_at_boot(config: Config) -> bool:
    """Tell whether the node would start the guest by itself."""
    return config.get("onboot", "0") == "1"


def newest_of(copies: Sequence[GuestCopy]) -> GuestCopy | None:
    """Choose the backup that is tried: the newest that holds something."""
    return max((each for each in copies if each.bytes), key=lambda each: each.at, default=None)


def obstacle_to_trial(guest: Guest, needed: int, storage_name: str, storage: StorageNow) -> Obstacle | None:
    """Tell what stands in the way of restoring a guest to a storage, before anything is begun."""
    wanted = CONTENT[guest.kind]
    if not storage.usable:
        return Obstacle(
            f"the storage {storage_name} is not usable on node {guest.node}: it is not active, or disabled",
            "see Datacenter > Storage, or name another `proxmox.verification.storage`",
        )
    if wanted not in storage.content:
        return Obstacle(
            f"the storage {storage_name} takes no disks of {guest}: its content is {', '.join(storage.content) or 'nothing'}, not {wanted}",
            f"add the content {wanted} to it, or name another `proxmox.verification.storage`",
        )
    if storage.free_bytes < needed:
        return Obstacle(
            f"{size_text(storage.free_bytes)} are free on the storage {storage_name} where {size_text(needed)} are wanted to restore {guest}",
            "make room there, or name another `proxmox.verification.storage`; nothing was restored",
        )
    return None


def require_alone(guest: str, config: Config, vmid: int) -> None:
    """Raise Refused where a restored guest may not be started: a link is not down, or something in it is not its own."""
    if up := links_up(config):
        raise Refused(
            f"the network link of {guest} is not down ({', '.join(up)}), although that was asked for: it is not started",
            hint="may the token change its network (VM.Config.Network, SDN.Use on the bridge's zone)?",
        )
    if reached := ties(config, vmid):
        raise Refused(
            f"{guest} would use what the guest that still runs may be using ({', '.join(reached)}): it is not started",
            hint="a guest with devices, directories or disks of its node cannot be tried beside itself; restore it by hand elsewhere",
        )


def free_id(value: object) -> int | None:
    """Read the answer of `/cluster/nextid`: an id, which Proxmox writes as a text."""
    found: Any = value
    if isinstance(found, str) and re.fullmatch(r"\d{3,9}", found):
        found = int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 100 else None
