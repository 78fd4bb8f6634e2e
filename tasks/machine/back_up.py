"""The steps that fill an archive with what the settings name of the host: images, volumes, files, the list of packages."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.reader import check_archive
from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.archive.writer import PartialArchive, segment
from tasks.adapters.engine.client import engine_version
from tasks.adapters.engine.saved_images import save_image
from tasks.adapters.engine.volumes import users_of
from tasks.adapters.host.files import free_space
from tasks.adapters.machine.host_files import Gathered, add_paths, with_targets, without_links_above
from tasks.adapters.machine.packages import hostname, installed_packages, system_name
from tasks.adapters.machine.volume_tar import pack_here, pack_in, readable_here
from tasks.core.archive.layout import HOST_PACKAGES
from tasks.core.archive.manifest import Record
from tasks.core.archive.system_contents import HostContents, HostImage, HostVolume
from tasks.core.errors import ArchiveDamaged
from tasks.core.machine.paths import volume_member
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.machine.helper import volume_helper
from tasks.machine.look import SeenHost, SeenVolume, image_sizes
from tasks.progress import progress
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)


@step(name="require room")
def require_room_for_host(config: InstallationConfig, seen: SeenHost) -> int:
    """Raise Refused unless the repository is the known one and has room for all of it uncompressed; return the bytes."""
    require_repository(config.repository)
    wanted = sum(_bytes_below(each.volume.place) for each in seen.volumes) + image_sizes(seen.images)
    wanted += sum(_bytes_below(each) for each in seen.paths)
    need = Need("the archive", str(config.repository), wanted + MARGIN_BYTES)
    free_bytes, free_inodes = free_space(config.repository)
    minimum = config.settings.minimum_free_bytes
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes, minimum_free_bytes=minimum)
    return need.bytes


@step(name="save images")
def save_images(seen: SeenHost, archive: PartialArchive) -> list[HostImage]:
    """Put the images into the archive where the settings ask for it, and tell of all; safe to repeat."""
    with segment(archive, "images", on_bytes=lambda raw, _: tell(raw)) as part, progress("images") as tell:
        for each in seen.images:
            if each.member:
                part.add_stream(each.member, save_image(each.name), mtime=datetime.now(UTC))
    return list(seen.images)


@step(name="copy volumes")
def copy_volumes(
    config: InstallationConfig, seen: SeenHost, archive: PartialArchive
) -> tuple[list[HostVolume], list[str]]:
    """Put each volume into the archive as a tar, and tell how it was made, and what changed meanwhile; safe to repeat."""
    done, notes = [], []
    with segment(archive, "volumes", on_bytes=lambda raw, _: tell(raw)) as part, progress("volumes") as tell:
        for each in seen.volumes:
            warnings: list[str] = []
            name = each.volume.name
            with _packed(config, seen, each, warnings) as chunks:
                part.add_stream(volume_member(name), chunks, mtime=datetime.now(UTC))
            # Asked again: a container may have begun to write since the look.
            writers = [user.container for user in users_of({name})[name] if user.runs and user.writes]
            writers = list(dict.fromkeys([*each.writers, *writers]))
            about, quiet = each.volume, not (writers or warnings)
            done.append(
                HostVolume(
                    name=name,
                    member=volume_member(name),
                    driver=about.driver,
                    options=dict(about.options),
                    labels=dict(about.labels),
                    consistent=quiet,
                    used_by=writers,
                )
            )
            if writers:
                notes.append(
                    f"volume {name} was read while {', '.join(writers)} could write to it: it is not of one moment"
                )
            notes += [f"volume {name}: {warning}" for warning in warnings]
    return done, notes


@contextmanager
def _packed(
    config: InstallationConfig, seen: SeenHost, each: SeenVolume, warnings: list[str]
) -> Iterator[Iterator[bytes]]:
    place = each.volume.place
    if place is not None and readable_here(place):
        yield pack_here(place, warnings)
        return
    with volume_helper(
        seen.helper_image, each.volume.name, installation_id=config.id, directory=config.directory, read_only=True
    ) as helper:
        yield pack_in(helper, warnings)


@step(name="copy files")
def copy_files(config: InstallationConfig, seen: SeenHost, archive: PartialArchive) -> tuple[Gathered, str]:
    """Put the projects' files, the paths and the list of packages into the archive; safe to repeat."""
    gathered = Gathered()
    with segment(archive, "files") as part:
        for project in seen.projects:
            add_paths(part, list(with_targets([Path(each) for each in project.files])), gathered)
        # A path may be /srv, with the repository in it: no backup holds the backups before it.
        add_paths(part, seen.paths, gathered, without=(without_links_above(config.repository),))
        manager, listed = installed_packages()
        if listed:
            part.add_bytes(HOST_PACKAGES, listed.encode(), mtime=datetime.now(UTC))
    return gathered, manager


@step(name="check archive")
def check_host(config: InstallationConfig, record: Record) -> None:
    """Read a plain archive from its first byte to its last, as a restore would; of an encrypted one sealing has read the file back."""
    if record.manifest.encryption is None:
        found = check_archive(config.repository / record.file)
        if found.kind != "system":
            raise ArchiveDamaged(f"{record.file} is not read as what it was written as")


def contents_of(
    seen: SeenHost, volumes: list[HostVolume], images: list[HostImage], gathered: Gathered, packages: str
) -> HostContents:
    """Say what was put into the archive."""
    return HostContents(
        hostname=hostname(), system=system_name(), engine=engine_version(), volumes=volumes, projects=list(seen.projects),
        images=images, paths=[str(without_links_above(each)) for each in seen.paths], links=gathered.links, packages=packages,
    )  # fmt: skip


def _bytes_below(place: Path | None) -> int:
    """Give how much a directory, or a file, takes on the disk, as far as that can be seen."""
    if place is None:
        return 0
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except OSError:
                continue
    try:
        return total + os.lstat(place).st_blocks * 512
    except OSError:
        return total
