"""The steps that bring pieces of the host back from a backup: planned first, and never over something that is there unless said."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.reader import CheckedArchive, entries_of
from tasks.adapters.archive.repository import list_backups
from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.engine.client import engine_directory
from tasks.adapters.engine.resources import image_exists, image_facts, local_images
from tasks.adapters.engine.saved_images import load_image, tag_image
from tasks.adapters.engine.volumes import Volume, find_volume, users_of
from tasks.adapters.host.files import free_space
from tasks.adapters.host.streams import watched
from tasks.adapters.machine.placing import compare_file, compare_link, make_place, place_file, place_link
from tasks.core.archive.authenticity import Trust, authenticity_of
from tasks.core.archive.layout import HOST_FILES, HOST_IMAGES, HOST_VOLUMES
from tasks.core.archive.manifest import Member
from tasks.core.archive.origin import Words
from tasks.core.archive.system_contents import HostContents, HostImage, HostVolume
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.errors import ArchiveDamaged, BackupError, Refused, UsageError
from tasks.core.machine.only import Wanted, choose
from tasks.core.machine.paths import holds, path_of
from tasks.core.machine.restore_plan import HostPlan, There, VolumeThere, plan_restore, require_sound, stands_for
from tasks.core.policy.space import Need, require_room
from tasks.machine.helper import fitting_image
from tasks.machine.restored_volume import fill_beside, fill_new
from tasks.progress import progress
from tasks.restore.check_archive import check_backup
from tasks.restore.origin import is_foreign_to, trusted_on_fresh_host
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import look_at
from tasks.step import step

logger = logging.getLogger(__name__)

FOREIGN_HINT = (
    "this host knows no key that made it: give the installation's public key, which `doctor` prints, as --trusted-key; or say"
    " --foreign if you trust its maker, for its images and files will run here"
)
IMAGES_TRIED = 20
TOLD = 30
HELPER_IMAGE = "debian:stable-slim"


@dataclass(frozen=True, slots=True)
class HostArchive:
    """A backup of a host that was read from its first byte to its last, whether it is a stranger's, and what it holds."""

    archive: CheckedArchive
    contents: HostContents
    foreign: str

    @property
    def files(self) -> dict[str, Member]:
        """Give its files by their absolute paths."""
        return {path: each for each in self.archive.members if (path := path_of(each.name))}


@dataclass
class HostRestored:
    """What a restore did: each piece in words, under which names the former ones are kept, and what else is worth knowing."""

    backup: str
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_host_backup(
    config: InstallationConfig, backup: str, words: Words, trusted_keys: tuple[str, ...] = ()
) -> HostArchive:
    """Read a backup of the host wholly; raise Refused where it is another kind, or a stranger's without the operator's word."""
    chosen = _newest(config, trusted_keys) if backup == "latest" else backup
    checked = check_backup(config.archives, chosen, of_system=True)
    manifest = checked.manifest
    if manifest is None or manifest.host is None:
        raise Refused(
            f"{checked.name} is a backup of {manifest.subject if manifest and manifest.subject else 'the mail database'}, not of the host",
            hint="`mailarchiver-backup list` says what each is of",
        )
    foreign = is_foreign_to(checked, trusted_on_fresh_host(config, checked, trusted_keys))
    if foreign and not words.foreign:
        raise Refused(f"{checked.name} is not known as this installation's own: {foreign}", hint=FOREIGN_HINT)
    found = HostArchive(checked, manifest.host, foreign)
    require_sound(manifest.host, list(found.files))
    return found


def _newest(config: InstallationConfig, trusted_keys: tuple[str, ...]) -> str:
    """Name the newest backup of the host that is the installation's own; on another host, that one of the given keys has made."""
    require_repository(config.archives)
    backups = list_backups(config.archives)
    ours = [each.manifest.name for each in look_at(config, backups, now=datetime.now(UTC)).system if each.manifest.host]
    keys = (*config.settings.trusted_keys, *trusted_keys)
    ours += [
        each.name
        for each in backups
        if each.record is not None
        and each.record.manifest.host is not None
        and authenticity_of(
            Trust(each.record.manifest.installation, trusted=keys), each.record, name=each.name, file_bytes=each.bytes
        ).counts
    ]
    if not ours:
        raise UsageError(
            f"there is no backup of the host in {config.archives} that is known as {config.id}'s own",
            hint="`mailarchiver-backup list` says what is there: name one, or give the key that made it as --trusted-key",
        )
    return ours[0]


@step(name="plan restore of the host")
def plan_host_restore(found: HostArchive, only: tuple[str, ...], *, replace: bool) -> tuple[Wanted, HostPlan]:
    """Compare what is wanted with what is on this host; touch nothing."""
    files = found.files
    wanted = choose(found.contents, list(files), only)
    volumes = {each.name: find_volume(each.name) for each in wanted.volumes}
    users = users_of(set(volumes))
    there = There(
        {
            name: VolumeThere(
                tuple(user.container for user in users[name] if user.runs),
                each.is_plain and each.place is not None and os.geteuid() == 0,
            )
            for name, each in volumes.items()
            if each is not None
        },
        {each.name: image_facts(each.name).image_id for each in wanted.images if image_exists(each.name)}
        | {each.name: each.image_id for each in wanted.images if not each.member and image_exists(each.image_id) and not image_exists(each.name)},
        {path: state for path in wanted.files if (state := compare_file(Path(path), files[path]))}
        | {each.path: state for each in wanted.links if (state := compare_link(Path(each.path), each.target))},
        frozenset(place for each in wanted.volumes if _is_empty(place := stands_for(each))),
    )  # fmt: skip
    return wanted, plan_restore(found.archive.name, wanted, there, replace=replace, foreign=bool(found.foreign))


def _is_empty(place: str) -> bool:
    return place.startswith("/") and os.path.isdir(place) and not os.listdir(place)


@step(name="restore the host", retries=0)
def restore_pieces(config: InstallationConfig, found: HostArchive, wanted: Wanted, plan: HostPlan) -> HostRestored:
    """Restore what the plan says, in one pass over the archive: images, volumes, files; links last."""
    work = _Work(config, found, wanted, plan, f".before-{datetime.now(UTC):%Y%m%d-%H%M%S}", HostRestored(plan.backup))
    members = {each.name: each for each in found.archive.members}
    _require_room(plan, wanted, members)
    try:
        _restore_all(work, members)
    except OSError as error:
        place = error.filename or "a file of the host"
        failure = BackupError(
            f"{place} cannot be restored: {error.strerror}", hint="see what is in its place, and try again"
        )
        work.add_what_was_done(failure)
        raise failure from error
    except BaseException as error:
        work.add_what_was_done(error)
        raise
    by_hand = [each for each in plan.pieces if each.act == "by hand"]
    work.restored.notes += [f"{each.kind} {each.name}: {each.why}" for each in by_hand]
    return work.restored


def _require_room(plan: HostPlan, wanted: Wanted, members: dict[str, Member]) -> None:
    """Raise Refused, before anything is made, where the engine's disk has no room for the volumes and images."""
    volumes, images = (plan.of(kind, "create", "replace") for kind in ("volume", "image"))
    pieces = [each.member for each in wanted.volumes if each.name in volumes]
    pieces += [each.member for each in wanted.images if each.name in images]
    place = engine_directory() if pieces else None
    if place is None:
        return
    need = Need("volumes and images", str(place), sum(members[each].bytes for each in pieces if each in members))
    free_bytes, free_inodes = free_space(place)
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes, minimum_free_bytes=0)


def _restore_all(work: _Work, members: dict[str, Member]) -> None:
    with (
        entries_of(work.found.archive, f"{HOST_IMAGES}/", f"{HOST_VOLUMES}/", f"{HOST_FILES}/") as stream,
        progress("restore"),
    ):
        for entry in stream.entries():
            name = entry.name.partition("/")[2]
            act = work.act_of(name, entry)
            if act is None:
                continue
            member = members.get(name)
            digest = hashlib.sha256()
            act(entry, member, watched(stream.content(), digest.update))
            if member is not None and digest.hexdigest() != member.sha256:
                raise ArchiveDamaged(f"{name} changed since the archive was checked")
    for link in work.wanted.links:
        if link.path in work.plan.of("link", "create", "replace"):
            aside = work.stamp if link.path in work.plan.of("link", "replace") else ""
            work.note(f"link {link.path}", place_link(Path(link.path), link.target, aside=aside))


_Act = Callable[[TarEntry, "Member | None", Iterator[bytes]], None]


@dataclass
class _Work:
    """One restore at work."""

    config: InstallationConfig
    found: HostArchive
    wanted: Wanted
    plan: HostPlan
    stamp: str
    restored: HostRestored
    helper_image: str = ""

    def act_of(self, name: str, entry: TarEntry) -> _Act | None:
        """Give what is to be done with an entry of the archive; None where nothing is."""
        for image in self.wanted.images:
            if image.member == name and image.name in self.plan.of("image", "create", "replace"):
                return lambda _entry, _member, content: self._load(image, content)
        for volume in self.wanted.volumes:
            if volume.member == name and volume.name in self.plan.of("volume", "create", "replace"):
                return lambda _entry, _member, content: self._fill(volume, content)
        path = path_of(name)
        if path and entry.is_directory and any(holds(one, path) or holds(path, one) for one in self.wanted.above):
            return lambda one, _member, _content: make_place(Path(path), one)
        if path and path in self.plan.of("file", "create", "replace"):
            return lambda one, member, content: self._place(path, one, member, content)
        return None

    def note(self, what: str, kept: str) -> None:
        """Note what was done, and where the former is."""
        self.restored.done.append(what)
        if kept:
            self.restored.kept.append(kept)

    def add_what_was_done(self, error: BaseException) -> None:
        """Let an error that ends the restore tell what was restored before it."""
        if self.restored.done:
            kept = f"; the former ones are kept as {', '.join(self.restored.kept)}" if self.restored.kept else ""
            error.add_note(f"Restored before that: {', '.join(self.restored.done[:TOLD])}{kept}.")

    def _load(self, image: HostImage, content: Iterator[bytes]) -> None:
        kept = ""
        if image.name in self.plan.of("image", "replace"):
            former = image_facts(image.name).image_id
            kept = f"{image.name if ':' in image.name.rpartition('/')[2] else image.name + ':latest'}{self.stamp}"
            tag_image(former, kept)
        load_image(content)
        if not image_exists(image.image_id):
            raise BackupError(
                f"Docker loaded {image.name}, and has no image {image.image_id[:19]}: it is not the one that was backed up",
                hint="an engine that keeps images another way gives them other ids: take `docker pull` by digest",
            )
        self.note(f"image {image.name}", kept)

    def _fill(self, volume: HostVolume, content: Iterator[bytes]) -> None:
        helper = self._helper()
        if volume.name in self.plan.of("volume", "replace"):
            aside = f"{volume.name}{self.stamp}"
            said = fill_beside(self.config, volume.name, aside, self._proven(volume.member, content), helper)
            self.note(f"volume {volume.name}", aside)
        else:
            made = Volume(volume.name, volume.driver, dict(volume.options), dict(volume.labels))
            said = fill_new(self.config, made, self._proven(volume.member, content), helper)
            self.note(f"volume {volume.name}", "")
        if not volume.consistent:
            who = f" by {', '.join(volume.used_by)}" if volume.used_by else ""
            self.restored.notes.append(
                f"volume {volume.name} was in use{who} while it was backed up: it is not of one moment"
            )
        self.restored.notes += [f"volume {volume.name}: {each}" for each in said]

    def _proven(self, name: str, content: Iterator[bytes]) -> Iterator[bytes]:
        """Let the last byte pass only when all are what was checked: else the volume is not whole."""
        expected = next(each for each in self.found.archive.members if each.name == name)
        digest = hashlib.sha256()
        yield from watched(content, digest.update)
        if digest.hexdigest() != expected.sha256:
            raise ArchiveDamaged(f"{name} changed since the archive was checked")

    def _place(self, path: str, entry: TarEntry, member: Member | None, content: Iterator[bytes]) -> None:
        if member is None:
            raise ArchiveDamaged(f"{path} changed since the archive was checked")
        aside = self.stamp if path in self.plan.of("file", "replace") else ""
        self.note(f"file {path}", place_file(Path(path), entry, member, content, aside=aside))

    def _helper(self) -> str:
        images = [one for each in self.found.contents.images for one in (each.image_id, each.name)]
        if not self.helper_image:
            candidates = [*images, HELPER_IMAGE, *local_images(IMAGES_TRIED)]
            self.helper_image = fitting_image(
                candidates, installation_id=self.config.id, directory=self.config.directory
            )
        if not self.helper_image:
            raise Refused(
                "no image of this host can unpack a volume: GNU tar is wanted",
                hint=f"docker pull {HELPER_IMAGE}",
            )
        return self.helper_image
