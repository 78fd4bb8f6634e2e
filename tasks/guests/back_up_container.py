"""One container's backup: looked at before, stopped, copied as a whole, and running again before the archive is read back."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.archive.writer import PartialArchive, segment
from tasks.adapters.guests import lxc
from tasks.adapters.guests.files import listing_of, measured
from tasks.adapters.guests.tar import packed, require_tar
from tasks.adapters.host.files import free_space
from tasks.adapters.host.outside_files import CONTAINER_CONFIGURATION, read_outside
from tasks.core.archive.layout import CONTAINER_CONFIG, CONTAINER_FILES, CONTAINER_LISTING
from tasks.core.archive.system_contents import GuestFacts
from tasks.core.errors import BackupError, Refused, UsageError
from tasks.core.guests.container import mounts_left_out, root_directory, root_in_config
from tasks.core.guests.former_state import Former
from tasks.core.policy.guest_settings import Lxc
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.core.units import duration_text
from tasks.guests.guest_loan import state_kept
from tasks.guests.power import ContainerPower
from tasks.progress import progress
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fit:
    """A container that may be backed up: where its files are, its former state, what it takes, and what is no part of the backup."""

    name: str
    place: Path
    root: Path
    former: Former
    bytes: int
    left_out: tuple[str, ...]

    @property
    def config_file(self) -> Path:
        """Where its configuration is."""
        return self.place / self.name / "config"


@dataclass(frozen=True, slots=True)
class Copied:
    """What the archive got of a container, of which moment, and how long the container was down for it."""

    facts: GuestFacts
    at: datetime
    downtime_seconds: float


def lxc_of(config: InstallationConfig) -> Lxc:
    """Give the section of the settings; raise Refused where there is none."""
    if config.settings.lxc is None:
        raise Refused(
            f"the settings of {config.id} name no containers of LXC",
            hint="add the section `lxc`: see the settings that `init` writes",
        )
    return config.settings.lxc


def chosen_containers(config: InstallationConfig, name: str) -> tuple[str, ...]:
    """Give the containers of the settings, or the one of this name; raise UsageError for one that they do not name."""
    known = lxc_of(config).containers
    if name and name not in known:
        raise UsageError(f"the settings of {config.id} name no container {name!r}", hint=f"known: {', '.join(known)}")
    return (name,) if name else known


@step(name="look at container", run_name="look at container {name}", retries=2)
def look_at_container(config: InstallationConfig, name: str) -> Fit:
    """Look whether a container can be backed up: known to LXC, running or stopped, its files in a directory, and room for them. Nothing is stopped."""
    place = lxc_of(config).path
    lxc.require_lxc()
    require_tar()
    seen, word = lxc.container_now(place, name)
    if seen.state not in ("running", "stopped"):
        raise Refused(
            f"the container {name} is {word}: only one that runs or is stopped is backed up",
            hint=f"`lxc-unfreeze -P {place} -n {name}` lets a frozen one go on"
            if word == "FROZEN"
            else "wait until it runs",
        )
    root = _root_of(place, name)
    if not root.is_dir():
        raise Refused(f"the root directory {root} of the container {name} is not there", hint="is its disk mounted?")
    if config.repository.resolve().is_relative_to(root.resolve()):
        raise Refused(
            f"the repository {config.repository} lies in the container {name}",
            hint="what is backed up must not hold its backups",
        )
    left_out = mounts_left_out(lxc.config_values(place, name, "lxc.mount.entry"), root_directory(str(root), name))
    left_out += [f"the mounts of {each}" for each in lxc.config_values(place, name, "lxc.mount.fstab")]
    size = measured(root)
    require_repository(config.repository)
    free_bytes, free_inodes = free_space(config.repository)
    require_room(
        Need(f"the archive of the container {name}", str(config.repository), size + size // 50 + MARGIN_BYTES),
        free_bytes=free_bytes, free_inodes=free_inodes, minimum_free_bytes=config.settings.minimum_free_bytes,
    )  # fmt: skip
    former: Former = "running" if seen.state == "running" else "stopped"
    return Fit(name, place, root, former, size, tuple(left_out))


# Not retried: a second backup of the same night would stop the container again.
@step(name="copy container", run_name="copy container {fit.name}", retries=0)
def copy_container(config: InstallationConfig, archive: PartialArchive, fit: Fit) -> Copied:
    """Stop a container, copy it, and see it in its former state again, whatever happens."""
    wanted = lxc_of(config)
    with state_kept(config, ContainerPower(fit.place, fit.name), fit.former) as loan:
        loan.stop(wanted)
        at, begun = datetime.now(UTC), time.monotonic()
        listing = listing_of(fit.root)
        with (
            progress(f"copy of {fit.name}", expected_bytes=fit.bytes or None) as tell,
            segment(archive, "container", on_bytes=lambda raw, _: tell(raw)) as part,
        ):
            part.add_bytes(CONTAINER_CONFIG, _read(fit.config_file), mtime=at)
            part.add_bytes(CONTAINER_LISTING, b"".join(listing.lines), mtime=at)
            part.add_stream(CONTAINER_FILES, packed(fit.root, limit_seconds=wanted.limit_hours * 3600), mtime=at)
        loan.require_stopped()
        loan.give_back()
        logger.info("Copied %s in %s", fit.name, duration_text(time.monotonic() - begun))
    if listing.sockets:
        logger.info("%d sockets were passed over: their programs make them anew", listing.sockets)
    facts = GuestFacts(
        name=fit.name,
        place=str(fit.place / fit.name),
        entries=len(listing.lines),
        bytes=listing.bytes,
        left_out=list(fit.left_out),
    )
    return Copied(facts, at, loan.downtime_seconds)


def _root_of(place: Path, name: str) -> Path:
    own = root_in_config(_read(place / name / "config").decode(errors="replace"))
    values = [own] if own is not None else lxc.config_values(place, name, "lxc.rootfs.path")
    return Path(root_directory(values[0] if values else "", name)).resolve()


def _read(path: Path) -> bytes:
    try:
        return read_outside(path, CONTAINER_CONFIGURATION)[0]
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from error
