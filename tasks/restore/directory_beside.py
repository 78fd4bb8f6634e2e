"""Extract a data directory beside the current one, and prove it by starting a private PostgreSQL on it."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tasks.adapters.archive.chain import named_as_link, parents_of
from tasks.adapters.archive.extraction import below, extract, extraction
from tasks.adapters.archive.reader import Archive, CheckedArchive, check_while, read_text_member
from tasks.adapters.engine import containers
from tasks.adapters.engine.labels import COPY_LABEL
from tasks.adapters.host.files import free_space, make_mounted_directory, remove_tree
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.streams import watched
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.indexes import damaged_indexes, newly_invalid_indexes
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, session
from tasks.adapters.stack import mail_archiver
from tasks.core.archive.layout import DATA_DIRECTORY, KEYS_DIRECTORY
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.errors import BackupError, Refused
from tasks.core.policy.space import MARGIN_BYTES, Need, require_room
from tasks.core.report.comparisons import Comparison
from tasks.core.stack.beside import Mark, mark_of_directory, stamp_of
from tasks.core.stack.compatibility import Platform, refuse_unfit_copy
from tasks.core.stack.installation import Installation, Mount
from tasks.progress import progress
from tasks.recovery.helper_containers import helper_container
from tasks.recovery.journalled import journalled
from tasks.restore.chain import combine, link_place, links_of
from tasks.run.data_users import refuse_other_users
from tasks.run.installations import installation_of
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "copy"
PROGRAM_SECONDS = 3600.0
# What a data directory holds besides its largest database and its WAL.
OTHER_DATABASES_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Copy:
    """A data directory (and keys) extracted beside the current ones; `keys` is None where the installation keeps none."""

    data: Path
    current_data: Path
    keys: Path | None
    current_keys: Path | None
    stamp: str
    label: str


def refuse_what_stays(place: Path) -> None:
    """Raise Refused where a data directory is a link or a mount point: a rename exchanges neither."""
    if place.is_symlink() or (place.exists() and os.path.ismount(place)):
        raise Refused(
            f"{place} is a {'link' if place.is_symlink() else 'mount point'}, which cannot be exchanged by a rename",
            hint="let the compose file mount a directory below it",
        )


@step(name="check target")
def check_physical_target(installation: Installation, archive: Archive) -> None:
    """Raise Refused where this data directory must not run under the installation's image, or cannot be swapped in; touch nothing."""
    if archive.manifest is None and not any(member.name.startswith(f"{KEYS_DIRECTORY}/") for member in archive.members):
        # With a manifest, no keys means that there were none.
        raise Refused(
            f"{archive.name} holds no data-protection keys",
            hint="restore another backup, or its database alone from a hot backup",
        )
    refuse_other_users(installation)
    place = host_place(installation)
    refuse_what_stays(place)
    refuse_unfit_copy(archive.manifest, _major(archive), platform_of(installation), archive_name=archive.name)
    links = len(archive.manifest.parents) + 1 if archive.manifest else 1
    room_bytes = room_for_whole(archive)
    if links > 1:
        logger.info(
            "%s is put together from %d archives, which needs up to %d bytes",
            archive.name,
            links,
            room_bytes,
        )
    need = Need(
        "the extracted data"
        if links == 1
        else f"the extracted data of {links} archives and what is put together of them",
        str(place.parent),
        room_bytes + MARGIN_BYTES,
        (links + (links > 1)) * (archive.files + 64),
    )
    free_bytes, free_inodes = free_space(place.parent)
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes)


def room_for_whole(archive: Archive) -> int:
    """Estimate how many bytes the extracted data needs: of a chain all links, and what is put together of them."""
    parents = parents_of(archive)
    extracted = sum(each.unpacked_bytes for each in (*parents, archive))
    if not parents or archive.manifest is None:
        return extracted
    # The newest link's own files, its WAL among them, are in the result too.
    return extracted + archive.manifest.database.size_bytes + archive.unpacked_bytes + OTHER_DATABASES_BYTES


def _major(archive: Archive) -> str:
    """Give the PostgreSQL major of the data, which must equal the directory's PG_VERSION (else the private server does not start)."""
    if isinstance(archive, CheckedArchive) and archive.manifest is None:
        return read_text_member(archive, f"{DATA_DIRECTORY}/PG_VERSION", max_bytes=64).strip()
    assert archive.manifest is not None
    return str(archive.manifest.database.server_major)


def platform_of(installation: Installation) -> Platform:
    """Find out what the installation's PostgreSQL image is by asking the image itself; its server need not run."""
    return platform_in(answer_of_image(installation), image=installation.postgres.image)


def answer_of_image(installation: Installation, also: str = "true") -> str:
    """Give what the installation's PostgreSQL image says of itself, and of what another shell script asks it."""
    script = (
        "postgres --version; echo machine $(uname -m);"
        " if ls /lib/ld-musl-* >/dev/null 2>&1; then echo libc musl; else echo libc gnu $(ldd --version 2>/dev/null | head -n 1); fi;"
    )
    with helper_container(
        installation, ["-c", f"{script} {also}"], labels={COPY_LABEL: "probe"}, entrypoint=["sh"]
    ) as helper:
        containers.start_container(helper)
        containers.wait_container(helper, PROBE_SECONDS)
        return containers.logs(helper, ANSWER_LINES)


def platform_in(said: str, *, image: str) -> Platform:
    """Read what an image said of itself; raise BackupError where it is no PostgreSQL."""
    major = re.search(r"\(PostgreSQL\)\s+(\d+)", said)
    machine = re.search(r"^machine (\S+)", said, re.MULTILINE)
    libc = re.search(r"^libc (\S+)(?:.*\s(\d+\.\d+)\s*$)?", said, re.MULTILINE)
    if not (major and machine and libc):
        raise BackupError(f"the image {image} does not tell its PostgreSQL version: {said.strip()[:200]}")
    return Platform(int(major[1]), libc[1], libc[2] or "", machine[1])


def host_place(installation: Installation) -> Path:
    """Give the data directory's place on this host; raise Refused where only Docker can reach it."""
    place = installation.data_directory
    if place is None:
        raise Refused(
            f"the data in {installation.data_mount.source} cannot be reached from here, only through Docker",
            hint="run the full restore on Docker's host, as root",
        )
    # On a fresh host the directory of PostgreSQL 18's major version is not there yet.
    existing = next(parent for parent in place.parents if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Refused(f"{existing} cannot be written", hint="run the full restore as root")
    return place


@contextmanager
def copy_beside(installation: Installation, place: Path, keys_place: Path | None, *, now: datetime) -> Iterator[Copy]:
    """Give the names of a copy; what still stands there at the end of the block (not swapped in) is removed, after a crash too.

    Raise Refused, before anything is made, for a user who could neither give the files their owners nor remove them again.
    """
    if os.geteuid() != 0:
        raise Refused(
            f"whole data directories are restored, and verified, by root only; this is user {os.geteuid()}",
            hint="run it with sudo; a hot backup can be restored and verified without",
        )
    mark = Mark("restored", stamp_of(now))
    copy = Copy(
        data=mark.directory(place),
        current_data=place,
        keys=mark.directory(keys_place) if keys_place else None,
        current_keys=keys_place,
        stamp=mark.stamp,
        label=secrets.token_hex(8),
    )
    journal = open_journal(
        KIND,
        {"project": installation.project, "data": str(copy.data), "keys": str(copy.keys or ""), "label": copy.label},
        installation_id=installation.id,
        installation_directory=installation.directory,
    )
    with journalled(journal, lambda: _remove(copy.data, copy.keys, copy.label)):
        yield copy


def settle(journal: Journal) -> str:
    """Remove what a dead restore had extracted, and the private server on it."""
    data, keys, label = (str(journal.body[name]) for name in ("data", "keys", "label"))
    if not re.fullmatch("[0-9a-f]{16}", label):
        raise Refused(
            f"{label!r} is no label of a private server", hint=f"read {journal.path}; remove what it tells of by hand"
        )
    if not journal.installation_directory.is_dir():
        _remove(None, None, label)
        return f"{journal.installation_directory} is gone, and the unfinished copy in it"
    installation = installation_of(journal)
    places = [(data, host_place(installation)), *([(keys, installation.keys_directory)] if keys else [])]
    whole = installation.data_mount.host_path  # an upgrade makes the whole mount anew
    for path, place in places:
        marks = (mark_of_directory(path, each) for each in (place, whole if path == data else None) if each is not None)
        mark = next((each for each in marks if each is not None), None)
        if mark is None or mark.word != "restored":
            raise Refused(
                f"{path} is not the name that a restore of {installation.id} gives beside {place}, so nothing is removed",
                hint="has the compose file changed since? then give it back what it said, and try again",
            )
    _remove(Path(data), Path(keys) if keys else None, label)
    return f"removed the unfinished copy {data}"


@step(name="extract data files", run_name="extract {archive.name}")
def extract_copy(installation: Installation, archive: Archive, copy: Copy) -> CheckedArchive:
    """Extract data and keys with their owners into the copy while the archive is checked; safe to repeat: a retry starts over.

    Those of a chain are extracted one beside the other, and put together. Raise ArchiveDamaged, with the copy worth
    nothing, where a byte is not as it was sealed.
    """
    for place in (copy.data, copy.keys, links_of(copy.data)):
        if place is not None:
            remove_tree(place)
    make_mounted_directory(copy.data.parent)
    checked = extract_whole(installation, archive, copy.data, label=copy.label)
    if copy.keys is not None:
        extract(checked, KEYS_DIRECTORY, copy.keys, keep_owners=True)
    return checked


def extract_whole(installation: Installation, archive: Archive, data: Path, *, label: str) -> CheckedArchive:
    """Extract a data directory, of a chain put together, while every byte is checked; return the archive as it was read."""
    parents = parents_of(archive)
    if not parents:
        checked = _extract_data(archive, data)
    else:
        for number, parent in enumerate(parents):
            with named_as_link(parent, archive):
                _extract_data(parent, link_place(data, number))
        checked = _extract_data(archive, link_place(data, len(parents)))
        assert archive.manifest is not None  # it has parents
        major = archive.manifest.database.server_major
        combine(installation, data, len(parents) + 1, major=major, label=label)
    _keep_root(data)
    return checked


def _extract_data(archive: Archive, place: Path) -> CheckedArchive:
    expected = archive.unpacked_bytes
    with progress("extract", expected_bytes=expected) as tell, extraction(place, keep_owners=True) as data:
        done = 0

        def count(piece: bytes) -> None:
            nonlocal done
            done += len(piece)
            tell(done)

        def take(entry: TarEntry, name: str, pieces: Iterator[bytes]) -> None:
            relative = below(name, DATA_DIRECTORY)
            if relative is not None:
                data.add(relative, entry, watched(pieces, count))

        return check_while(archive, take)


def _keep_root(data: Path) -> None:
    """Give the data directory itself the owner of what is in it; PostgreSQL insists on both owner and mode."""
    owner = (data / "PG_VERSION").stat()
    os.chown(data, owner.st_uid, owner.st_gid)
    data.chmod(0o700)


def is_base_backup(archive: CheckedArchive) -> bool:
    """Tell whether a data directory was copied by pg_basebackup, so that `pg_verifybackup` can check it."""
    names = {member.name for member in archive.members}
    return {f"{DATA_DIRECTORY}/backup_manifest", f"{DATA_DIRECTORY}/backup_label"} <= names


@step(name="verify base backup", retries=0)
def verify_base_backup(installation: Installation, archive: CheckedArchive, copy: Copy) -> list[str]:
    """Check an extracted base backup with PostgreSQL's own `pg_verifybackup`.

    A copy taken cold is none: without a `backup_label`, a manifest in it is a leftover of a restore before.
    """
    if not is_base_backup(archive):
        return []
    command = f"PATH=$PATH:$(pg_config --bindir 2>/dev/null) pg_verifybackup --quiet {shlex.quote(installation.pgdata)}"
    with helper_container(
        installation,
        ["-c", command],
        mounts=[Mount("bind", str(copy.data), installation.pgdata, copy.data, read_only=True)],
        labels={COPY_LABEL: copy.label},
        entrypoint=["sh"],
    ) as helper:
        containers.start_container(helper)
        code = containers.wait_container(helper, PROGRAM_SECONDS)
        said = containers.logs(helper, 10).strip()
    return [] if code == 0 else [f"pg_verifybackup: {said}"]


@dataclass(frozen=True, slots=True)
class CopyProof:
    """What was looked at in a copy: how many attachments, which comparisons, and in words what is wrong."""

    attachments: int
    comparisons: tuple[Comparison, ...]
    wrong: list[str]


@step(name="prove copy")
def prove_copy(view: Installation, archive: Archive, *, thorough: bool) -> CopyProof:
    """Look at the copy through its private server: attachments' SHA-256, indexes (against their tables where `thorough`).

    Indexes that were invalid at the source may be so here.

    Return what was looked at, and in words what is wrong.
    """
    with server_of(view) as server:
        with session(server, "postgres", purpose="prove", answer_seconds=LONG_ANSWER_SECONDS) as opened:
            if not databases.database_exists(opened, view.database.name):
                return CopyProof(0, (), [f"the restored data has no database {view.database.name}"])
        with session(server, view.database.name, purpose="prove", answer_seconds=LONG_ANSWER_SECONDS) as opened:
            count, wrong = mail_archiver.count_attachments(opened)
            before = archive.manifest.database.invalid_indexes if archive.manifest else None
            wrong = [*wrong, *newly_invalid_indexes(opened, before or ())]
            damaged = damaged_indexes(opened, thorough=thorough)
            trees: Comparison = "B-trees and tables" if thorough else "B-trees"
            return CopyProof(
                count, ("attachments",) if damaged is None else ("attachments", trees), [*wrong, *(damaged or [])]
            )


def _remove(data: Path | None, keys: Path | None, label: str) -> None:
    for container in containers.containers(label={COPY_LABEL: label}):
        containers.remove_container(container.id, force=True)
    remove_tree(sockets_of(label).parent)
    for place in (data, keys, links_of(data) if data is not None else None):
        if place is not None and ".restored-" in place.name:
            remove_tree(place)


PROBE_SECONDS, ANSWER_LINES = 60.0, 2000


def sockets_of(label: str) -> Path:
    """Name the directory of a private server's socket: a short path, since a socket's may have 107 bytes only."""
    return Path(tempfile.gettempdir()) / f"mailarchiver-backup-{label}" / "sockets"
