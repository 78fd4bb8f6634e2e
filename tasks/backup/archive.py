"""The steps that fill an archive besides its data: keys, configuration, manifest."""

from __future__ import annotations

import io
import logging
import os
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tasks.adapters.archive.identity import read_identity, require_key
from tasks.adapters.archive.new_identity import NewIdentity
from tasks.adapters.archive.ownership import next_place, note_made, note_sealed
from tasks.adapters.archive.repository_marker import claim_repository
from tasks.adapters.archive.segment import Segment
from tasks.adapters.archive.verification_keys import drop_key, keep_key, new_verification_key
from tasks.adapters.archive.writer import (
    PartialArchive,
    abandon_archive,
    begin_archive,
    seal_archive,
    segment,
    written_members,
)
from tasks.adapters.engine import container_files
from tasks.core.archive.authenticity import sign_manifest, sign_record
from tasks.core.archive.bulk import summed_up
from tasks.core.archive.layout import KEYS_DIRECTORY
from tasks.core.archive.manifest import (
    CHAINED_VERSION,
    MANIFEST_VERSION,
    NO_DATABASE,
    Census,
    DatabaseFacts,
    Encryption,
    Format,
    ImageFacts,
    Link,
    Manifest,
    Method,
    Record,
)
from tasks.core.archive.names import backup_name, split_archive_name
from tasks.core.archive.signatures import public_key
from tasks.core.archive.system_contents import GuestFacts, HostContents, SystemMethod
from tasks.core.errors import BackupError, NameTaken, Refused
from tasks.core.stack.identify import KEYS_TARGET
from tasks.core.stack.installation import Installation, Service
from tasks.core.stack.keys import keys_warnings
from tasks.progress import progress
from tasks.run.config import InstallationConfig
from tasks.run.drills import note_encrypting
from tasks.run.encryption import keeps_verification_key, recipients_of, verification_key_limit
from tasks.step import step

logger = logging.getLogger(__name__)

KEYS_LIMIT_BYTES = 64 << 20
NAMES_TRIED = 1000


@contextmanager
def new_archive(
    config: InstallationConfig, archive_format: Format, now: datetime, *, of_system: bool = False
) -> Iterator[PartialArchive]:
    """Begin an archive, encrypted where the settings say so, and give it; unless it was sealed by the end of the block, nothing of it stays.

    One of the system around (`of_system`) is never verified on staging, and so gets no key for that.
    """
    recipients = recipients_of(config)
    key = new_verification_key() if recipients and keeps_verification_key(config) and not of_system else None
    claim_repository(config.repository)
    archive = _begin(config.repository, archive_format, now, recipients, key)
    try:
        if recipients:
            note_encrypting(config.id, recipients, now)
        if key is not None:
            keep_key(archive.final_path, key, until=datetime.now(UTC) + verification_key_limit(config))
        yield archive
    finally:
        abandon_archive(archive)
        if key is not None and not archive.final_path.exists():
            drop_key(archive.final_path)


def _begin(
    repository: Path, archive_format: Format, now: datetime, recipients: tuple[str, ...], key: NewIdentity | None
) -> PartialArchive:
    """Begin an archive under the first free name; another installation's run may take one at the same moment."""
    public = key.recipient if key else ""
    everybody = (*recipients, public) if public else recipients
    taken = {found[0] for path in _entries(repository) if (found := split_archive_name(path.name))}
    while True:
        name = backup_name(now, taken)
        try:
            return begin_archive(repository, name, archive_format, everybody, verification_key=public)
        except NameTaken:
            if len(taken) > NAMES_TRIED:
                raise
            taken.add(name)


@step(name="copy keys")
def copy_keys(installation: Installation, archive: PartialArchive) -> list[str]:
    """Copy the data-protection keys into the archive and return what is wrong with them (for the manifest); safe to repeat.

    Read where they lie when permissions allow, else through Docker. Never follows a link. Raise Refused where the application has no keys
    directory at all, or one that cannot be read: such an archive could not restore its users' sessions.
    """
    with segment(archive, "keys") as part:
        before = len(part.members)
        mount = installation.keys_mount
        if mount is not None and mount.host_path is not None and _readable(mount.host_path):
            place = str(mount.host_path)
            _refuse_what_is_no_key(mount.host_path)
            part.add_tree(KEYS_DIRECTORY, mount.host_path)
        else:
            place = f"{mount.target if mount else KEYS_TARGET} of service {installation.application.name}"
            _add_from_container(part, installation.application, mount.target if mount else KEYS_TARGET)
        found = keys_warnings(part.members[before:], part.notes, place=place)
    for warning in found:
        logger.warning("%s", warning)
    return found


def _refuse_what_is_no_key(directory: Path) -> None:
    """Raise Refused, before anything is read, for a file that no key can be: a sparse one of gigabytes would be read for minutes."""
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except FileNotFoundError:
                continue
            if found.st_size > KEYS_LIMIT_BYTES:
                raise Refused(
                    f"{place}/{name} among the data-protection keys has {found.st_size:,} bytes: that is no key",
                    hint="move it elsewhere; keys are XML files of a kilobyte each",
                )


@step(name="copy configuration")
def copy_configuration(installation: Installation, archive: PartialArchive) -> int:
    """Copy every configuration file of the installation into the archive and return how many; safe to repeat."""
    with segment(archive, "configuration") as part:
        made: set[str] = set()
        now = datetime.now(UTC)
        for file in installation.config_files:
            for parent in reversed(Path(file.archive_name).parents[:-1]):
                if str(parent) not in made:
                    made.add(str(parent))
                    part.add_directory(str(parent), mtime=now)
            part.add_file(
                file.archive_name, file.path.resolve() if _is_link_inside(file.path, installation) else file.path
            )
        return len(installation.config_files)


@step(name="seal archive")
def seal_backup(
    installation: Installation,
    archive: PartialArchive,
    *,
    method: Method,
    at: datetime,
    facts: DatabaseFacts,
    census: Census | None,
    no_census: str = "",
    warnings: Sequence[str] = (),
    begun: float,
    downtime_seconds: float = 0.0,
    parents: Sequence[Link] = (),
    why_full: str = "",
    history: str = "",
) -> Record:
    """Add the signed manifest, read everything back, and give the archive its final name; return its record, signed too.

    `begun` is when the backup began by `time.monotonic`.
    """
    members, bulk = summed_up(written_members(archive)) if parents else (written_members(archive), None)
    manifest = Manifest(
        version=CHAINED_VERSION if parents else MANIFEST_VERSION,
        name=archive.name,
        method=method,
        format=archive.format,
        installation=installation.id,
        project=installation.project,
        created_at=at,
        downtime_seconds=round(downtime_seconds, 3),
        program_version=version("mailarchiver-backup"),
        database=facts,
        images=[_image(service) for service in (installation.application, installation.postgres)],
        superuser=installation.database.superuser,
        pgdata=installation.pgdata,
        data_target=installation.data_mount.target,
        keys_target=installation.keys_mount.target if installation.keys_mount else KEYS_TARGET,
        compose_files=[_archive_name(installation, path) for path in installation.compose_files],
        members=members,
        bulk=bulk,
        census=census,
        no_census=no_census,
        warnings=list(warnings),
        encryption=_encryption(archive),
        parents=list(parents),
        why_full=why_full,
        history=history,
    )
    return seal_manifest(installation, archive, manifest, begun=begun)


def seal_manifest(installation: Installation, archive: PartialArchive, manifest: Manifest, *, begun: float) -> Record:
    """Sign a manifest of ours, add it, read everything back, and give the archive its final name; return its record, signed too."""
    return _seal(installation.id, installation.directory, installation.project, archive, manifest, begun)


@step(name="seal archive")
def seal_system_backup(
    config: InstallationConfig,
    archive: PartialArchive,
    *,
    method: SystemMethod,
    at: datetime,
    guest: GuestFacts | None = None,
    host: HostContents | None = None,
    warnings: Sequence[str] = (),
    begun: float,
    downtime_seconds: float = 0.0,
) -> Record:
    """Do for a backup of the system around what `seal_backup` does for one of the database: no stack needs to be there."""
    project = config.project or read_identity(config.id, config.directory).project
    manifest = Manifest(
        version=MANIFEST_VERSION, name=archive.name, method=method, format=archive.format, installation=config.id, project=project,
        created_at=at, downtime_seconds=round(downtime_seconds, 3), program_version=version("mailarchiver-backup"), database=NO_DATABASE,
        images=[], members=written_members(archive), guest=guest, host=host, warnings=list(warnings), encryption=_encryption(archive),
    )  # fmt: skip
    return _seal(config.id, config.directory, project, archive, manifest, begun)


def _seal(
    installation: str, directory: Path, project: str, archive: PartialArchive, manifest: Manifest, begun: float
) -> Record:
    key = require_key(installation, directory, project=project, system_identifier=manifest.database.system_identifier)
    place = read_identity(installation, directory).place
    made, previous = next_place(public_key(key), place, archive.repository)
    manifest = sign_manifest(manifest, key, sequence=made.sequence + 1, previous=previous)
    note_made(place, archive.repository, made, manifest, state="sealing")
    with progress("read back") as tell:
        seconds = round(time.monotonic() - begun, 3)
        sealed = seal_archive(
            archive,
            manifest,
            seconds=seconds,
            on_bytes=lambda _, done: tell(done),
            sign=lambda each: sign_record(each, key),
        )
    note_sealed(place, archive.repository, manifest.name)
    logger.info("Sealed %s: %d bytes, SHA-256 %s", sealed.path, sealed.bytes, sealed.sha256)
    return sealed.record


def _encryption(archive: PartialArchive) -> Encryption | None:
    """Tell to whom an archive is encrypted; the key for its one verification is told apart."""
    if not archive.recipients:
        return None
    lasting = [each for each in archive.recipients if each != archive.verification_key]
    return Encryption(recipients=lasting, verification=archive.verification_key)


def _image(service: Service) -> ImageFacts:
    return ImageFacts(service=service.name, image=service.image, image_id=service.image_id, digest=service.image_digest)


def _archive_name(installation: Installation, path: Path) -> str:
    for file in installation.config_files:
        if file.path == path:
            return file.archive_name
    return path.name


def _entries(repository: Path) -> list[Path]:
    return list(repository.iterdir()) if repository.is_dir() else []


def _readable(directory: Path) -> bool:
    try:
        return os.access(directory, os.R_OK | os.X_OK) and all(
            os.access(path, os.R_OK, follow_symlinks=False)
            if os.access in os.supports_follow_symlinks
            else os.access(path, os.R_OK)
            for path in directory.iterdir()
        )
    except OSError:
        return False


def _is_link_inside(path: Path, installation: Installation) -> bool:
    """Tell whether a configuration file is a link that stays within the installation (a `.env` kept elsewhere in it)."""
    return path.is_symlink() and path.resolve().is_relative_to(installation.directory.resolve())


def _add_from_container(part: Segment, service: Service, target: str) -> None:
    """Add a small directory of a container, by Docker's archive API: regular files only, each within the limit."""
    if service.state == "absent":
        raise Refused(
            f"the keys of service {service.name} can be read neither from here nor through Docker: it has no container",
            hint=f"run as a user who may read them, or create the container: docker compose up --no-start {service.name}",
        )
    part.add_directory(KEYS_DIRECTORY, mtime=datetime.now(UTC))
    try:
        with tarfile.open(
            fileobj=ReadableStream(container_files.get_archive_stream(service.container_id, target)), mode="r|"
        ) as source:
            for entry in source:
                name = entry.name.partition("/")[2]
                if entry.isdir() and name:
                    part.add_directory(
                        f"{KEYS_DIRECTORY}/{name}", mtime=datetime.fromtimestamp(entry.mtime, UTC), mode=entry.mode
                    )
                elif not entry.isdir() and not entry.isreg():
                    part.notes.append(f"{KEYS_DIRECTORY}/{name} is no regular file and was left out")
                elif entry.isreg() and (content := source.extractfile(entry)) is not None:
                    if entry.size > KEYS_LIMIT_BYTES:
                        raise Refused(f"{target}/{name} has {entry.size:,} bytes: that is no key")
                    part.add_bytes(
                        f"{KEYS_DIRECTORY}/{name}", content.read(), mtime=datetime.fromtimestamp(entry.mtime, UTC),
                        mode=entry.mode, uid=entry.uid, gid=entry.gid,
                    )  # fmt: skip
    except tarfile.TarError as error:
        raise BackupError(f"Docker sent no readable copy of {target}: {error}", transient=True) from error


class ReadableStream(io.RawIOBase):
    """An iterator of bytes as the file that tarfile wants."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        pieces, have = [self._rest], len(self._rest)
        while size < 0 or have < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            pieces.append(chunk)
            have += len(chunk)
        joined = b"".join(pieces)
        if size < 0:
            self._rest = b""
            return joined
        self._rest = joined[size:]
        return joined[:size]
