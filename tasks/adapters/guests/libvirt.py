"""libvirt through virsh, whose answers are read strictly; and what qemu-img says of a disk."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from tasks.adapters.host.processes import run
from tasks.core.errors import BackupError, ProgramFailed, Refused
from tasks.core.guests.machine import DomainNow, read_domain_info

PROGRAMS = ("virsh", "qemu-img")
ANSWER_SECONDS = 60.0
CHECK_SECONDS = 6 * 3600.0
_ENGLISH = {"LC_ALL": "C"}


def require_libvirt() -> None:
    """Raise Refused where the programs are missing, or where we may not read disks and start machines."""
    if missing := [each for each in PROGRAMS if shutil.which(each) is None]:
        raise Refused(
            f"the program {missing[0]} is not on this host",
            hint="install it: apt-get install libvirt-clients qemu-utils",
        )
    if os.geteuid() != 0:
        raise Refused(
            f"virtual machines are backed up and restored by root, not by user {os.geteuid()}", hint="run it as root"
        )


def domain_now(uri: str, name: str) -> DomainNow:
    """Give what libvirt says of a machine now, one that is paused only until it has started among them; raise Refused where it knows none of that name."""
    try:
        found = read_domain_info(_virsh(uri, "dominfo", name), name)
        if found.word == "paused" and "starting up" in _virsh(uri, "domstate", name, "--reason"):
            return replace(found, seen=replace(found.seen, state="between"))
        return found
    except ProgramFailed as error:
        if "failed to get domain" in error.stderr:
            raise Refused(
                f"there is no virtual machine {name} at {uri}",
                hint=f"`virsh -c {uri} list --all` names those that are there",
            ) from error
        raise


def exists(uri: str, name: str) -> bool:
    """Tell whether libvirt knows a machine, by its name or its UUID."""
    try:
        _virsh(uri, "dominfo", name)
    except ProgramFailed as error:
        if "failed to get domain" in error.stderr:
            return False
        raise
    return True


def domain_xml(uri: str, name: str) -> str:
    """Give the definition with which a machine starts next, passwords included."""
    return _virsh(uri, "dumpxml", name, "--inactive", "--security-info")


def act(uri: str, what: str, name: str) -> None:
    """Start a machine, press its power button, or pull its plug; one that is so already is no error."""
    try:
        _virsh(uri, what, name)
    except ProgramFailed as error:
        state = domain_now(uri, name).seen.state
        if state != ("running" if what == "start" else "stopped"):
            raise BackupError(f"virsh {what} {name} failed: {error.stderr.strip() or error.message}") from error


def define(uri: str, xml: Path) -> None:
    """Make a machine known to libvirt."""
    _virsh(uri, "define", str(xml))


def undefine(uri: str, uuid: str) -> None:
    """Let libvirt forget a machine; its disks stay."""
    _virsh(uri, "undefine", uuid, "--keep-nvram")


def backing_file(disk: Path, kind: str) -> str:
    """Name the file that a disk's image builds on; "" where it stands alone."""
    command = ["qemu-img", "info", "--force-share", "--output=json", "-f", kind, str(disk)]
    said = run(command, timeout_seconds=ANSWER_SECONDS, environment=_ENGLISH).stdout
    try:
        found = json.loads(said)
        return str(found.get("backing-filename", "")) if isinstance(found, dict) else ""
    except ValueError as error:
        raise BackupError(f"qemu-img says of {disk} what is not understood: {said[:100]!r}") from error


def require_sound_image(disk: Path, kind: str) -> None:
    """Raise BackupError where an image that has a structure of its own is not sound; a raw one has none."""
    if kind == "raw":
        return
    command = ["qemu-img", "check", "-q", "-f", kind, str(disk)]
    try:
        run(command, timeout_seconds=CHECK_SECONDS, environment=_ENGLISH)
    except ProgramFailed as error:
        if error.exit_code_seen not in (3, 63):  # clusters that nobody uses; a format that has no check
            raise BackupError(f"the image {disk} is damaged: {error.stderr.strip()[:300]}") from error


def _virsh(uri: str, *words: str) -> str:
    command = ["virsh", "--quiet", "--connect", uri, *words]
    return run(command, timeout_seconds=ANSWER_SECONDS, environment=_ENGLISH).stdout
