"""Read archives as if a stranger had made them. Only `check_archive` makes a `CheckedArchive`; nothing else is ever swapped in.

Plans are made of a `RecordedArchive` too: what the record beside an archive says, before a byte of it was read. A restore reads the archive
once, extracting or loading beside the current data while it is checked; what came of it counts only when the check is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tasks.adapters.archive.archive_source import ArchiveSource, Identity
from tasks.adapters.archive.compression import decompressed
from tasks.adapters.archive.opening import as_source, opened_archive, require_recorded
from tasks.adapters.archive.small_members import KeptMembers, KeptStream, SmallMembers, _is_small
from tasks.adapters.archive.source import Readable
from tasks.adapters.host.streams import read_ahead, watched
from tasks.core.archive.bulk import is_bulk, summed_up
from tasks.core.archive.layout import DATA_DIRECTORY, DATA_DIRECTORY_PROOFS, DUMP_KINDS, MANIFEST_NAME, Kind
from tasks.core.archive.manifest import Format, Manifest, Member, Record, parse_manifest
from tasks.core.archive.structure import Structure, manifest_limit_bytes
from tasks.core.archive.tar_reader import Limits, TarEntry, TarStream
from tasks.core.errors import ArchiveDamaged, Refused

Taker: TypeAlias = Callable[[TarEntry, str, Iterator[bytes]], None]
"""Gets each file and directory as it is checked: its entry, its name without the top directory, its bytes (to read or to leave)."""
_TOKEN = object()
DIRECTORIES_ASKED_FOR = 64
ALTERED_HINT = "the archive was altered or damaged: take another, `mailarchiver-backup list` shows them"


@dataclass(frozen=True, slots=True)
class CheckedArchive:
    """An archive every byte of which was read and found to be what its manifest (where it has one) says.

    `manifest` is None for a legacy archive, made by the guide's own commands. `members` are relative to the `top`
    directory, the manifest not among them. `kept` holds all that is neither dump nor data directory, in its order, so
    that nobody reads gigabytes again for a key; None where that was too much.
    """

    source: ArchiveSource
    sha256: str
    bytes: int
    name: str
    format: Format
    kind: Kind
    manifest: Manifest | None
    members: tuple[Member, ...]
    record: Record | None
    top: str
    identity: Identity
    token: object = field(repr=False, compare=False)
    kept: KeptMembers | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse to be made by anybody but `check_archive`."""
        if self.token is not _TOKEN:
            raise AssertionError("only check_archive makes a CheckedArchive")

    @property
    def path(self) -> Path:
        """Where it lies, or would lie, in the repository: its file's name, and the place of its record."""
        return self.source.path

    @property
    def unpacked_bytes(self) -> int:
        """Give how many bytes its files have."""
        return sum(each.bytes for each in self.members)

    @property
    def files(self) -> int:
        """Give how many files it has."""
        return len(self.members)


@dataclass(frozen=True, slots=True)
class RecordedArchive:
    """An archive as the record beside it describes it; `check_while` finds out whether it is so."""

    source: ArchiveSource
    sha256: str
    bytes: int
    format: Format
    kind: Kind
    manifest: Manifest
    record: Record

    @property
    def path(self) -> Path:
        """Where it lies, or would lie, in the repository: its file's name, and the place of its record."""
        return self.source.path

    @property
    def name(self) -> str:
        """Name of the backup."""
        return self.manifest.name

    @property
    def members(self) -> tuple[Member, ...]:
        """What it should hold, as far as that is listed."""
        return tuple(self.manifest.members)

    @property
    def unpacked_bytes(self) -> int:
        """Give how many bytes its files should have."""
        bulk = self.manifest.bulk
        return sum(each.bytes for each in self.members) + (bulk.bytes if bulk else 0)

    @property
    def files(self) -> int:
        """Give how many files it should have."""
        bulk = self.manifest.bulk
        return len(self.members) + (bulk.files if bulk else 0)


Archive: TypeAlias = CheckedArchive | RecordedArchive


def recorded_archive(archive: Path | ArchiveSource) -> RecordedArchive | None:
    """Describe an archive by its record; None where it has none, or where even its size is another."""
    source = as_source(archive)
    record = source.record()
    if record is None or record.file != source.path.name or source.bytes != record.bytes:
        return None
    manifest = record.manifest
    kind = _kind(source.path, manifest.members, manifest)
    return RecordedArchive(source, record.sha256, record.bytes, manifest.format, kind, manifest, record)


def check_while(archive: Archive, take: Taker) -> CheckedArchive:
    """Check an archive, handing its members to `take` meanwhile; raise ArchiveDamaged where it is not what it was described as.

    What `take` made of the members is to be thrown away unless this returns.
    """
    checked = check_archive(archive.source, take=_as_described(archive, take))
    if (checked.sha256, checked.manifest) != (archive.sha256, archive.manifest):
        raise ArchiveDamaged(
            f"{archive.path.name} is not what its record says, or changed since it was checked", hint=ALTERED_HINT
        )
    return checked


def _as_described(archive: Archive, take: Taker) -> Taker:
    """Hand over only members that the archive was described with, each of the size that room was asked for; and no endless directories."""
    described = {member.name: member.bytes for member in archive.members}
    bulk = archive.manifest.bulk if isinstance(archive, RecordedArchive) else None
    directories = bulk_files = bulk_bytes = 0

    def checked_take(entry: TarEntry, name: str, pieces: Iterator[bytes]) -> None:
        nonlocal directories, bulk_files, bulk_bytes
        if entry.is_directory:
            directories += 1
            if directories > DIRECTORIES_ASKED_FOR + archive.files:
                raise ArchiveDamaged(f"{archive.path.name} holds more directories than files", hint=ALTERED_HINT)
        elif bulk is not None and is_bulk(name):
            bulk_files, bulk_bytes = bulk_files + 1, bulk_bytes + entry.size
            if bulk_files > bulk.files or bulk_bytes > bulk.bytes:
                raise ArchiveDamaged(
                    f"{archive.path.name} holds more than the {bulk.files:,} files and {bulk.bytes:,} bytes of its record",
                    hint=ALTERED_HINT,
                )
        elif name != MANIFEST_NAME and described.get(name) != entry.size:
            told = f"{described[name]:,} bytes" if name in described else "nothing"
            raise ArchiveDamaged(
                f"{archive.path.name} holds {name} with {entry.size:,} bytes, of which its record says {told}",
                hint=ALTERED_HINT,
            )
        take(entry, name, pieces)

    return checked_take


def check_archive(
    archive: Path | ArchiveSource, *, limits: Limits | None = None, take: Taker | None = None
) -> CheckedArchive:
    """Read an archive from its first byte to its last, in one pass and in bounded memory.

    Raise ArchiveDamaged where a byte is not what was sealed or the end is missing, Refused for what no archive of ours or the guide's
    holds (links, devices, paths that lead out, several tops), UsageError where there is no such file.
    """
    path = as_source(archive).path
    with opened_archive(as_source(archive)) as (source, content, archive_format, identity), ExitStack() as stack:
        chunks = stack.enter_context(closing(_bounded(content, archive_format, limits or Limits())))
        members: list[Member] = []
        structure = Structure()
        manifest_text: bytes | None = None
        small = SmallMembers()
        stream = TarStream(chunks, limits or Limits())
        for entry in stream.entries():
            top, _, name = entry.name.partition("/")
            structure.add(entry)
            if entry.is_directory:
                small.add(entry, name, b"")
                if take is not None:
                    take(entry, name, iter(()))
                continue
            digest = hashlib.sha256()
            kept: list[bytes] = []
            keep = name == MANIFEST_NAME or small.wants(entry, name)
            if name == MANIFEST_NAME and entry.size > manifest_limit_bytes(len(members)):
                raise ArchiveDamaged(
                    f"the manifest in {path.name} has {entry.size:,} bytes, too many for {len(members):,} files",
                    hint=ALTERED_HINT,
                )
            pieces = watched(stream.content(), digest.update, *([kept.append] if keep else []))
            if take is not None:
                take(entry, name, pieces)
            for _ in pieces:  # what `take` left
                pass
            if name == MANIFEST_NAME:
                manifest_text = b"".join(kept)
            else:
                small.add(entry, name, b"".join(kept))
                members.append(Member(name=name, bytes=entry.size, sha256=digest.hexdigest()))
        for rest in (content, source):  # whatever the decompressor left unread counts to the file's SHA-256
            while rest.read():
                pass
        sha256, size = source.hexdigest(), source.count

    top = structure.top
    manifest = (
        parse_manifest(manifest_text, source=f"{path.name}/{MANIFEST_NAME}") if manifest_text is not None else None
    )
    record = as_source(archive).record()
    _compare(path, top, members, manifest, record, sha256)
    return CheckedArchive(
        as_source(archive),
        sha256,
        size,
        top,
        archive_format,
        _kind(path, members, manifest),
        manifest,
        tuple(members),
        record,
        top,
        identity,
        _TOKEN,
        small.all(),
    )


def open_member(archive: CheckedArchive, name: str) -> Iterator[bytes]:
    """Yield a member's bytes; raise ArchiveDamaged at its end where they are no longer those that were checked."""
    expected = next((member for member in archive.members if member.name == name), None)
    if expected is None:
        raise Refused(f"{archive.path.name} holds no {name}")
    with entries_of(archive, name) as stream:
        for entry in stream.entries():
            if entry.name != f"{archive.top}/{name}":
                continue
            digest = hashlib.sha256()
            yield from watched(stream.content(), digest.update)
            if digest.hexdigest() != expected.sha256:
                raise ArchiveDamaged(f"{name} in {archive.path.name} changed since it was checked")
            return


def read_text_member(archive: CheckedArchive, name: str, *, max_bytes: int) -> str:
    """Read a small member as text; raise Refused where it is larger."""
    return read_small_member(archive, name, max_bytes=max_bytes).decode(errors="replace")


def read_small_member(archive: CheckedArchive, name: str, *, max_bytes: int) -> bytes:
    """Read a small member; raise Refused where it is larger."""
    size = next((member.bytes for member in archive.members if member.name == name), 0)
    if size > max_bytes:
        raise Refused(f"{name} in {archive.path.name} has {size:,} bytes, more than {max_bytes:,}")
    return b"".join(open_member(archive, name))


def read_small_members(archive: CheckedArchive, names: Collection[str], *, max_bytes: int) -> dict[str, bytes]:
    """Read small members in one pass; one that is larger is left out. Raise ArchiveDamaged where one is no longer what was checked."""
    wanted = {each.name: each for each in archive.members if each.name in names and each.bytes <= max_bytes}
    found: dict[str, bytes] = {}
    if not wanted:
        return found
    with entries_of(archive, *wanted) as stream:
        for entry in stream.entries():
            member = wanted.get(entry.name.partition("/")[2])
            if member is None or entry.is_directory or entry.size != member.bytes:
                continue
            content = b"".join(stream.content())
            if hashlib.sha256(content).hexdigest() == member.sha256:
                found[member.name] = content
            if len(found) == len(wanted):
                break
    if missing := sorted(wanted.keys() - found.keys()):
        raise ArchiveDamaged(f"{missing[0]} in {archive.path.name} changed since it was checked")
    return found


@contextmanager
def entries_of(archive: CheckedArchive, *wanted: str) -> Iterator[TarStream | KeptStream]:
    """Give the entries among which everything `wanted` (names, or directories with their slash) is found."""
    if archive.kept is not None and all(_is_small(each) for each in wanted):
        yield KeptStream(archive.kept)
        return
    with opened_archive(archive.source) as (_, content, archive_format, identity):
        if identity != archive.identity:
            raise ArchiveDamaged(
                f"{archive.path.name} was replaced or changed since it was checked", hint="check it again"
            )
        # Closed before the source is: the thread that reads ahead must not meet another file under its descriptor's number.
        with closing(read_ahead(decompressed(content, archive_format))) as chunks:
            yield TarStream(chunks, Limits())


def _bounded(source: Readable, archive_format: Format, limits: Limits) -> Generator[bytes, None, None]:
    """Give the decompressed stream, unless it grows beyond all proportion: then it is a bomb."""
    total = 0
    with closing(read_ahead(decompressed(source, archive_format))) as chunks:
        for chunk in chunks:
            total += len(chunk)
            if total > limits.total_bytes or total > (source.count + (1 << 20)) * limits.ratio:
                raise Refused(f"the archive unpacks to more than {total:,} bytes from {source.count:,}")
            yield chunk


def _compare(
    path: Path,
    top: str,
    members: list[Member],
    manifest: Manifest | None,
    record: Record | None,
    sha256: str,
) -> None:
    require_recorded(path, record, sha256)
    if manifest is None:
        if record is not None and record.file == path.name:
            raise ArchiveDamaged(f"{path.name} holds no {MANIFEST_NAME}, but has a record: it is not what was sealed")
        return
    if manifest.name != top:
        raise ArchiveDamaged(f"{path.name} holds the directory {top!r}, its manifest is of {manifest.name!r}")
    if manifest.bulk is not None:
        members, bulk = summed_up(members)
        if bulk != manifest.bulk:
            raise ArchiveDamaged(
                f"the data directory in {path.name} is not what its manifest says: {bulk.files:,} files of {bulk.bytes:,} bytes, list"
                f" {bulk.sha256[:16]}; there should be {manifest.bulk.files:,} of {manifest.bulk.bytes:,}, list {manifest.bulk.sha256[:16]}",
                hint=ALTERED_HINT,
            )
    found = {member.name: member for member in members}
    listed = {member.name: member for member in manifest.members}
    if len(listed) < len(manifest.members):
        raise ArchiveDamaged(f"the manifest in {path.name} lists a name twice", hint=ALTERED_HINT)
    for name in sorted(found.keys() | listed.keys()):
        if name not in found:
            raise ArchiveDamaged(f"{name} is missing in {path.name}", hint=ALTERED_HINT)
        if name not in listed:
            raise ArchiveDamaged(f"{path.name} holds {name}, which its manifest does not list", hint=ALTERED_HINT)
        if found[name] != listed[name]:
            raise ArchiveDamaged(
                f"{name} in {path.name} is not what its manifest says: its SHA-256 or size differs", hint=ALTERED_HINT
            )


def _kind(path: Path, members: Sequence[Member], manifest: Manifest | None) -> Kind:
    if manifest is not None and manifest.is_system:
        return "system"
    names = {member.name: member.bytes for member in members}
    for name, kind in DUMP_KINDS.items():
        if names.get(name):
            return kind
    if names.keys() >= DATA_DIRECTORY_PROOFS:
        return "physical"
    likely = sorted(name for name in names if name.endswith((".sql", ".sql.gz", ".dump", ".backup", "toc.dat")))
    raise ArchiveDamaged(
        f"{path.name} holds neither a dump ({', '.join(DUMP_KINDS)}) nor a data directory ({DATA_DIRECTORY}/)",
        hint=f"does {likely[0]} hold it? unpack the archive, make it database.sql, and pack it again"
        if likely
        else "is it a backup of Mail Archiver at all, or was its making cut short?",
    )
