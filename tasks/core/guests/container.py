"""A container of LXC as its own programs describe it: where its files are, and what belongs to it and lies elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.core.errors import BackupError, Refused
from tasks.core.guests.former_state import Now, Seen

_STATES: dict[str, Now] = {
    "STOPPED": "stopped", "RUNNING": "running", "STARTING": "between", "STOPPING": "between", "ABORTING": "between",
    "FREEZING": "other", "FROZEN": "other", "THAWED": "between",
}  # fmt: skip
_STATE = re.compile(r"State:\s+([A-Z]+)")
_PID = re.compile(r"PID:\s+([0-9]{1,10})")
_BACKING = re.compile(r"([a-z]+):(.*)")
# The kernel's own, made anew wherever the container starts.
_OF_THE_KERNEL = ("/dev", "/proc", "/sys")


def read_state(text: str, name: str) -> tuple[Seen, str]:
    """Read what `lxc-info -s -p` says, and give LXC's own word for the state too; raise BackupError for anything else."""
    state = pid = ""
    for line in text.splitlines():
        if found := _STATE.fullmatch(line.strip()):
            state = found[1]
        elif found := _PID.fullmatch(line.strip()):
            pid = found[1]
        elif line.strip():
            raise BackupError(f"lxc-info says of {name} what is not understood: {line.strip()[:100]!r}")
    if state not in _STATES:
        raise BackupError(
            f"lxc-info names no state of {name} that is known: {state or text.strip()[:100]!r}",
            hint="try `lxc-info` by hand",
        )
    return Seen(_STATES[state], pid), state


def root_in_config(text: str) -> str | None:
    """Give the `lxc.rootfs.path` of a configuration with its kind of backing, which `lxc-info` leaves out; None where an included file has it.

    >>> root_in_config("lxc.rootfs.path = dir:/a\\nlxc.rootfs.path = zfs:/b\\n")
    'zfs:/b'
    """
    found = re.findall(r"^\s*lxc\.rootfs\.path\s*=[ \t]*(.*?)\s*$", text, re.MULTILINE)
    return found[-1] if found else None


def root_directory(value: str, name: str) -> PurePosixPath:
    """Read `lxc.rootfs.path`; raise Refused where the container's files do not lie in a directory.

    >>> root_directory("dir:/var/lib/lxc/mail/rootfs", "mail")
    PurePosixPath('/var/lib/lxc/mail/rootfs')
    """
    backing, path = found.groups() if (found := _BACKING.fullmatch(value)) else ("dir", value)
    if backing != "dir":
        raise Refused(
            f"the files of {name} lie on {backing} ({value}), and only a directory (dir:) is backed up here",
            hint=f"`lxc-copy -n {name} -N {name}-dir -B dir` makes a container in a directory of it; or back it up with the tools of {backing}",
        )
    place = PurePosixPath(path)
    if not place.is_absolute() or ".." in place.parts or len(place.parts) < 2:
        raise Refused(
            f"the container {name} has no root directory of its own: lxc.rootfs.path is {value!r}",
            hint="is its configuration of LXC 2? `lxc-update-config -c FILE` brings it up to date",
        )
    return place


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of `lxc.mount.entry`."""

    source: str
    target: str
    options: tuple[str, ...]

    @property
    def is_of_host(self) -> bool:
        """Tell whether it brings a place of the host into the container: one that is not the kernel's own."""
        place = PurePosixPath(self.source)
        bound = any(each in self.options for each in ("bind", "rbind"))
        return bound and place.is_absolute() and not any(place.is_relative_to(each) for each in _OF_THE_KERNEL)

    @property
    def may_be_written(self) -> bool:
        """Tell whether the container may write there."""
        return "ro" not in self.options


def read_mount(line: str) -> Mount | None:
    """Read a line as in fstab; None where it is none.

    >>> read_mount("/srv/mail srv/mail none rw,bind,create=dir 0 0").is_of_host
    True
    """
    words = line.split()
    if len(words) < 4:
        return None
    return Mount(_unescaped(words[0]), _unescaped(words[1]), tuple(words[3].split(",")))


def mounts_left_out(lines: Iterable[str], root: PurePosixPath) -> list[str]:
    """Name the places of the host that the container has mounted: they are no part of its backup."""
    mounts = [each for line in lines if (each := read_mount(line)) is not None]
    return [
        f"{each.source} of the host, mounted at /{each.target.removeprefix(str(root)).lstrip('/')}{'' if each.may_be_written else ' (read only)'}"
        for each in mounts
        if each.is_of_host
    ]


def _unescaped(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)
