"""A container's configuration rewritten for its second life under another name, beside the first one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.core.errors import ArchiveDamaged
from tasks.core.guests.container import read_mount

_LINE = re.compile(r"\s*([a-z][a-z0-9_.]*)\s*=\s*(.*?)\s*")
# What names the container or its place is written anew; it does not start by itself, and has no group of its former life.
_DROPPED = ("lxc.uts.name", "lxc.rootfs.path", "lxc.start.auto", "lxc.start.delay", "lxc.start.order", "lxc.group")
_DROPPED_BEGINNINGS = ("lxc.cgroup.dir",)
# The names of LXC 2.
_FORMER = ("lxc.network", "lxc.rootfs", "lxc.utsname", "lxc.id_map", "lxc.mount")
OFF = "# Off since it was restored: "


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The new text, what differs from before that somebody must know, and whether the container's users are others on the host."""

    text: str
    notes: tuple[str, ...]
    has_mapped_ids: bool = False


def rewrite_config(
    text: str,
    *,
    name: str,
    root: PurePosixPath,
    former_place: PurePosixPath,
    with_network: bool,
    new_mac: Callable[[], str],
) -> Rewritten:
    """Give a container's configuration another name, place and network addresses.

    Without `with_network` it has no network at all: the live application in it would log in to the mailboxes of the first one. Places
    of the host that both could write are off in any case: two database servers on one directory ruin it. Raise ArchiveDamaged where a
    line is not understood.
    """
    lines: list[str] = []
    notes: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            lines.append(line)
            continue
        found = _LINE.fullmatch(line)
        if found is None or found[1] in _FORMER or found[1].startswith("lxc.network."):
            raise ArchiveDamaged(
                f"the container's configuration has a line that is not understood: {line.strip()[:100]!r}",
                hint="is it of LXC 2? `lxc-update-config -c FILE` brings the original up to date: then back it up again",
            )
        key, value = found[1], _moved(found[2], former_place, root.parent)
        if key in _DROPPED or key.startswith(_DROPPED_BEGINNINGS):
            continue
        if key.startswith("lxc.net.") or key == "lxc.net":
            if not with_network:
                lines.append(OFF + line.strip())
                continue
            value = new_mac() if key.endswith(".hwaddr") else value
            if ".ipv4." in key or ".ipv6." in key:
                notes.append(f"it has the address of the first one: {key} = {value}")
        mount = read_mount(value) if key == "lxc.mount.entry" else None
        if key == "lxc.mount.fstab":
            lines.append(OFF + line.strip())
            notes.append(f"the mounts of {value} are off")
            continue
        if mount is not None and mount.is_of_host and mount.may_be_written:
            lines.append(OFF + line.strip())
            notes.append(f"{mount.source} of the host is not mounted at {mount.target}: the first one may write there")
            continue
        lines.append(f"{key} = {value}")
    lines += [f"lxc.uts.name = {name}", f"lxc.rootfs.path = dir:{root}", "lxc.start.auto = 0"]
    if not with_network:
        # An empty value takes away what an included file may bring; without any line LXC would share the host's network.
        lines += ["lxc.net =", "lxc.net.0.type = empty"]
        notes.append("it has no network: the application in it would log in to the same mailboxes as the first one")
    return Rewritten("\n".join(lines) + "\n", tuple(notes), any(each.startswith("lxc.idmap") for each in lines))


def _moved(value: str, former: PurePosixPath, place: PurePosixPath) -> str:
    """Let paths below the former container's directory point below the new one's."""
    return re.sub(rf"{re.escape(str(former))}(?=/)", lambda _: str(place), value)
