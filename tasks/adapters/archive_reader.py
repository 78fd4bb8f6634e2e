"""Read archives as if a stranger had made them. Only `check_archive` makes a `CheckedArchive`; restores take nothing else."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tasks.adapters.compression import HashingReader, decompressed, detect_format, read_ahead
from tasks.adapters.files import make_directory, sync_file_system, write_all, write_error
from tasks.core.errors import ArchiveDamaged, BackupError, Refused, UsageError
from tasks.core.manifest import MANIFEST_NAME, Format, Manifest, Member, Record, parse_manifest, parse_record
from tasks.core.names import EXTENSIONS, RECORD_EXTENSION
from tasks.core.tar_reader import Limits, TarEntry, TarStream

Kind = Literal["sql", "custom", "physical"]
MANIFEST_LIMIT_BYTES = 512 << 20
RECORD_LIMIT_BYTES = 512 << 20
_DUMPS: dict[str, Kind] = {"database.sql": "sql", "database.dump": "custom"}
_PHYSICAL = {"postgres-data/PG_VERSION", "postgres-data/global/pg_control"}
KeptMembers = tuple[tuple[TarEntry, bytes], ...]
_TOKEN = object()
ALTERED_HINT = "the archive was altered or damaged: take another, `mailarchiver-backup list` shows them"
KEPT_LIMIT_BYTES = 16 << 20
KEPT_OVERHEAD_BYTES = 1 << 10


@dataclass(frozen=True, slots=True)
class CheckedArchive:
    """An archive every byte of which was read and found to be what its manifest (where it has one) says.

    `manifest` is None for a legacy archive, made by the guide's own commands. `members` are relative to the `top` directory, the manifest
    not among them. `kept` holds all that is neither dump nor data directory, in its order, so that nobody reads gigabytes again for a key; None
    where that was too much.
    """

    path: Path
    sha256: str
    bytes: int
    name: str
    format: Format
    kind: Kind
    manifest: Manifest | None
    members: tuple[Member, ...]
    record: Record | None
    top: str
    identity: tuple[int, int, int, int]
    token: object = field(repr=False, compare=False)
    kept: KeptMembers | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse to be made by anybody but `check_archive`."""
        if self.token is not _TOKEN:
            raise AssertionError("only check_archive makes a CheckedArchive")


def check_archive(path: Path, *, limits: Limits | None = None) -> CheckedArchive:
    """Read an archive from its first byte to its last, in one pass and in bounded memory.

    Raise ArchiveDamaged where a byte is not what was sealed or the end is missing, Refused for what no archive of ours or the guide's
    holds (links, devices, paths that lead out, several tops), UsageError where there is no such file.
    """
    with _opened(path) as (descriptor, archive_format, identity), ExitStack() as stack:
        source = HashingReader(descriptor)
        chunks = stack.enter_context(closing(_bounded(source, archive_format, limits or Limits())))
        members: list[Member] = []
        names: set[str] = set()
        tops: set[str] = set()
        parents: set[str] = set()
        manifest_text: bytes | None = None
        small = _Small()
        stream = TarStream(chunks, limits or Limits())
        for entry in stream.entries():
            top, _, name = entry.name.partition("/")
            tops.add(top)
            _refuse_odd_structure(entry, tops, names, parents)
            if entry.is_directory:
                small.add(entry, name, b"")
                continue
            names.add(entry.name)
            digest = hashlib.sha256()
            kept: list[bytes] = []
            keep = name == MANIFEST_NAME or small.wants(entry, name)
            if name == MANIFEST_NAME and entry.size > MANIFEST_LIMIT_BYTES:
                raise Refused(f"the manifest in {path.name} has {entry.size:,} bytes")
            for piece in stream.content():
                digest.update(piece)
                if keep:
                    kept.append(piece)
            if name == MANIFEST_NAME:
                manifest_text = b"".join(kept)
            else:
                small.add(entry, name, b"".join(kept))
                members.append(Member(name=name, bytes=entry.size, sha256=digest.hexdigest()))
        while source.read():  # whatever the decompressor left unread counts to the file's SHA-256
            pass
        sha256, size = source.hexdigest(), source.count

    top = tops.pop() if tops else ""
    manifest = (
        parse_manifest(manifest_text, source=f"{path.name}/{MANIFEST_NAME}") if manifest_text is not None else None
    )
    record = read_record_beside(path)
    _compare(path, top, members, manifest, record, sha256)
    return CheckedArchive(
        path,
        sha256,
        size,
        top,
        archive_format,
        _kind(path, members),
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
    with _entries(archive, name) as stream:
        for entry in stream.entries():
            found = entry.name == f"{archive.top}/{name}"
            digest = hashlib.sha256()
            for piece in stream.content():
                if found:
                    digest.update(piece)
                    yield piece
            if found:
                if digest.hexdigest() != expected.sha256:
                    raise ArchiveDamaged(f"{name} in {archive.path.name} changed since it was checked")
                return


def read_text_member(archive: CheckedArchive, name: str, *, max_bytes: int) -> str:
    """Read a small member as text; raise Refused where it is larger."""
    size = next((member.bytes for member in archive.members if member.name == name), 0)
    if size > max_bytes:
        raise Refused(f"{name} in {archive.path.name} has {size:,} bytes, more than {max_bytes:,}")
    return b"".join(open_member(archive, name)).decode(errors="replace")


def extract(archive: CheckedArchive, what: str | Collection[str], target: Path, *, keep_owners: bool) -> None:
    """Extract into a new directory: everything below the directory `what` (without its name), or the members named in it.

    Every component is made or opened without following a link. Owners, modes and times are kept where `keep_owners`; else files are 0600 and
    directories 0700, our own. On the disk before the return.
    """
    if target.exists():
        raise Refused(f"{target} exists already; archives are extracted into a new directory")
    make_directory(target)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    expected = {member.name: member.sha256 for member in archive.members}
    directories: list[tuple[str, TarEntry]] = []
    try:
        with _entries(archive, *([f"{what}/"] if isinstance(what, str) else what)) as stream:
            for entry in stream.entries():
                name = entry.name.partition("/")[2]
                relative = _relative(name, what)
                if relative is None:
                    for _ in stream.content():
                        pass
                elif entry.is_directory:
                    os.close(_make_directories(root, relative))
                    directories.append((relative, entry))
                else:
                    _extract_file(root, relative, entry, stream, expected.get(name), keep_owners)
        for relative, entry in reversed(directories):  # a directory's time changes with every file made in it
            if keep_owners:
                _set_attributes(root, relative, entry)
        sync_file_system(root)
    except OSError as error:
        raise write_error(target, error, written_bytes=0) from error
    finally:
        os.close(root)


def read_record_beside(path: Path) -> Record | None:
    """Read an archive's sidecar; None where it has none."""
    record_path = record_path_of(path)
    try:
        if record_path.stat().st_size > RECORD_LIMIT_BYTES:
            raise Refused(f"{record_path} is too large to be a record")
        return parse_record(record_path.read_bytes(), source=str(record_path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BackupError(f"{record_path} cannot be read: {error.strerror}") from error


def record_path_of(path: Path) -> Path:
    """Name the sidecar of an archive."""
    stem = path.name
    for extension in EXTENSIONS.values():
        stem = stem.removesuffix(extension)
    return path.with_name(stem + RECORD_EXTENSION)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, Format, tuple[int, int, int, int]]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UsageError(f"there is no archive {path}", hint="mailarchiver-backup list") from None
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}", hint="who may read it?") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{path} is no file")
        archive_format = detect_format(os.pread(descriptor, 4, 0))
        if archive_format is None:
            raise ArchiveDamaged(f"{path.name} is neither gzip nor zstd: no archive, or its beginning is damaged")
        yield descriptor, archive_format, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    finally:
        os.close(descriptor)


class _Small:
    """Gathers the members that are neither dump nor data directory, while they are few and small."""

    def __init__(self) -> None:
        self._entries: list[tuple[TarEntry, bytes]] | None = []
        self._bytes = 0

    def wants(self, entry: TarEntry, name: str) -> bool:
        """Tell whether to keep a file's content; one too many and nothing is kept any more."""
        if self._entries is None or not _is_small(name):
            return False
        self._bytes += entry.size + KEPT_OVERHEAD_BYTES
        if self._bytes > KEPT_LIMIT_BYTES:
            self._entries = None
        return self._entries is not None

    def add(self, entry: TarEntry, name: str, content: bytes) -> None:
        """Keep a file or directory."""
        if self._entries is not None and _is_small(name):
            self._entries.append((entry, content))

    def all(self) -> KeptMembers | None:
        """Give what was kept; None where it was too much."""
        return tuple(self._entries) if self._entries is not None else None


def _is_small(name: str) -> bool:
    """Tell whether a name belongs to what is usually small: neither dump, data nor manifest."""
    return name not in _DUMPS and not f"{name}/".startswith("postgres-data/") and name != MANIFEST_NAME


class _KeptStream:
    """Kept members, read as a `TarStream` is."""

    def __init__(self, kept: KeptMembers) -> None:
        self._kept = kept
        self._content = b""

    def entries(self) -> Iterator[TarEntry]:
        for entry, content in self._kept:
            self._content = content
            yield entry

    def content(self) -> Iterator[bytes]:
        yield self._content


@contextmanager
def _entries(archive: CheckedArchive, *wanted: str) -> Iterator[TarStream | _KeptStream]:
    """Give the entries among which everything `wanted` (names, or directories with their slash) is found."""
    if archive.kept is not None and all(_is_small(each) for each in wanted):
        yield _KeptStream(archive.kept)
        return
    with _opened(archive.path) as (descriptor, archive_format, identity):
        if identity != archive.identity:
            raise ArchiveDamaged(
                f"{archive.path.name} was replaced or changed since it was checked", hint="check it again"
            )
        # Closed before the descriptor is: the thread that reads ahead must not meet another file under its number.
        with closing(read_ahead(decompressed(HashingReader(descriptor), archive_format))) as chunks:
            yield TarStream(chunks, Limits())


def _bounded(source: HashingReader, archive_format: Format, limits: Limits) -> Generator[bytes, None, None]:
    """Give the decompressed stream, unless it grows beyond all proportion: then it is a bomb."""
    total = 0
    with closing(read_ahead(decompressed(source, archive_format))) as chunks:
        for chunk in chunks:
            total += len(chunk)
            if total > limits.total_bytes or total > (source.count + (1 << 20)) * limits.ratio:
                raise Refused(f"the archive unpacks to more than {total:,} bytes from {source.count:,}")
            yield chunk


def _refuse_odd_structure(entry: TarEntry, tops: set[str], names: set[str], parents: set[str]) -> None:
    if len(tops) > 1:
        raise Refused(f"the archive has more than one top directory: {', '.join(sorted(tops))}")
    if "/" not in entry.name and not entry.is_directory:
        raise Refused(f"the archive holds the file {entry.name!r} outside its top directory")
    if entry.name in names:
        raise Refused(f"the archive holds {entry.name!r} twice")
    parts = entry.name.split("/")
    above = {"/".join(parts[:length]) for length in range(1, len(parts))}
    parents |= above | ({entry.name} if entry.is_directory else set())
    both = sorted(above & names) or ([entry.name] if not entry.is_directory and entry.name in parents else [])
    if both:
        raise Refused(f"the archive holds {both[0]!r} both as a file and as a directory")


def _compare(
    path: Path, top: str, members: list[Member], manifest: Manifest | None, record: Record | None, sha256: str
) -> None:
    if record is not None and record.file == path.name and record.sha256 != sha256:
        raise ArchiveDamaged(
            f"{path.name} has SHA-256 {sha256}, its record says {record.sha256}: the file was altered after it was sealed",
            hint="restore another backup; `mailarchiver-backup list` shows them",
        )
    if manifest is None:
        if record is not None and record.file == path.name:
            raise ArchiveDamaged(f"{path.name} holds no {MANIFEST_NAME}, but has a record: it is not what was sealed")
        return
    if manifest.name != top:
        raise ArchiveDamaged(f"{path.name} holds the directory {top!r}, its manifest is of {manifest.name!r}")
    found = {member.name: member for member in members}
    listed = {member.name: member for member in manifest.members}
    for name in sorted(found.keys() | listed.keys()):
        if name not in found:
            raise ArchiveDamaged(f"{name} is missing in {path.name}", hint=ALTERED_HINT)
        if name not in listed:
            raise ArchiveDamaged(f"{path.name} holds {name}, which its manifest does not list", hint=ALTERED_HINT)
        if found[name] != listed[name]:
            raise ArchiveDamaged(
                f"{name} in {path.name} is not what its manifest says: its SHA-256 or size differs", hint=ALTERED_HINT
            )


def _kind(path: Path, members: list[Member]) -> Kind:
    names = {member.name: member.bytes for member in members}
    for name, kind in _DUMPS.items():
        if names.get(name):
            return kind
    if names.keys() >= _PHYSICAL:
        return "physical"
    raise ArchiveDamaged(
        f"{path.name} holds neither a dump nor a data directory",
        hint="is it a backup of Mail Archiver at all, or was its making cut short?",
    )


def _relative(name: str, what: str | Collection[str]) -> str | None:
    if isinstance(what, str):
        return name[len(what) + 1 :] if name.startswith(f"{what}/") else None
    return name if name in what else None


def _make_directories(root: int, relative: str) -> int:
    """Open a directory below the root, making what is missing; the caller closes it."""
    current = os.dup(root)
    for part in relative.split("/"):
        if not part:
            continue
        with suppress(FileExistsError):
            os.mkdir(part, 0o700, dir_fd=current)
        deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
        os.close(current)
        current = deeper
    return current


def _extract_file(
    root: int, relative: str, entry: TarEntry, stream: TarStream | _KeptStream, sha256: str | None, keep_owners: bool
) -> None:
    parent, _, name = relative.rpartition("/")
    directory = _make_directories(root, parent)
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        try:
            digest = hashlib.sha256()
            for piece in stream.content():
                digest.update(piece)
                write_all(descriptor, piece)
            if digest.hexdigest() != sha256:
                raise ArchiveDamaged(f"{relative} changed since the archive was checked")
            if keep_owners:
                if os.geteuid() == 0:
                    os.fchown(descriptor, entry.uid, entry.gid)
                os.fchmod(descriptor, entry.mode & 0o777)
                os.utime(descriptor, (entry.mtime_seconds, entry.mtime_seconds))
        finally:
            os.close(descriptor)
    finally:
        os.close(directory)


def _set_attributes(root: int, relative: str, entry: TarEntry) -> None:
    directory = _make_directories(root, relative)
    try:
        if os.geteuid() == 0:
            os.fchown(directory, entry.uid, entry.gid)
        os.fchmod(directory, entry.mode & 0o777)
        os.utime(directory, (entry.mtime_seconds, entry.mtime_seconds))
    finally:
        os.close(directory)
