"""What the manifest of a backup of the system around says: of a guest as a whole, or of pieces of the host."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.core.archive.values import Count, Name, Strings, Texts, Value

# Backups of the system around the application: they hold no database that a restore of it could take, and prove none.
SystemMethod = Literal["lxc", "vm", "host"]


class GuestDisk(Value):
    """A disk of a virtual machine: how it is called there, its file's name, its format, and the bytes that the file has."""

    target: Annotated[str, Field(pattern="^[a-z][a-z0-9]{0,15}$")]
    file: Name
    format: Literal["qcow2", "raw"]
    bytes: Count


class GuestFacts(Value):
    """Of a backup of a guest, a container of LXC or a virtual machine, as a whole: its name there, and what its files were.

    `bytes` is what its files take on the disk, `entries` how many they are; `place` is the directory it had (of a
    container). `left_out` names what belongs to the guest and is not in the backup.
    """

    name: Name
    place: Name = ""
    entries: Count = 0
    bytes: Count = 0
    disks: Annotated[list[GuestDisk], Field(fail_fast=True, max_length=100)] = Field(default_factory=list)
    left_out: Strings = Field(default_factory=list)


class HostVolume(Value):
    """A Docker volume in a backup of the host: how it was made, the member that holds it, and whether it was at rest.

    `member` is a tar of its content, by GNU tar. It is not `consistent` where containers that write to it ran meanwhile.
    """

    name: Name
    member: Name
    driver: Name
    options: Texts = Field(default_factory=dict)
    labels: Texts = Field(default_factory=dict)
    consistent: bool = True
    used_by: Strings = Field(default_factory=list)


class HostProject(Value):
    """A compose project: where it lives, and its files, by their absolute paths."""

    name: Name
    directory: Name
    files: Annotated[list[Name], Field(fail_fast=True)]


class HostImage(Value):
    """An image of a project's containers: its name, id and registry digests; `member` is what `docker save` wrote, where it was saved."""

    name: Name
    image_id: Name
    digests: Annotated[list[Name], Field(fail_fast=True)] = Field(default_factory=list)
    member: Name = ""


class HostLink(Value):
    """A symbolic link among the files of a host, by its absolute path; it is never followed."""

    path: Name
    target: Annotated[str, Field(min_length=1, max_length=4096)]


class HostContents(Value):
    """What a backup of the host around holds. Its files are members below `files/`, each under its absolute path."""

    hostname: Name
    system: Name = ""
    engine: Name = ""
    volumes: Annotated[list[HostVolume], Field(fail_fast=True, max_length=1000)] = Field(default_factory=list)
    projects: Annotated[list[HostProject], Field(fail_fast=True, max_length=1000)] = Field(default_factory=list)
    images: Annotated[list[HostImage], Field(fail_fast=True, max_length=1000)] = Field(default_factory=list)
    paths: Annotated[list[Name], Field(fail_fast=True, max_length=1000)] = Field(default_factory=list)
    links: Annotated[list[HostLink], Field(fail_fast=True, max_length=100_000)] = Field(default_factory=list)
    packages: Name = ""
