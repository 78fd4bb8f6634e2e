"""Build an archive in its repository: begin, append segments, seal. A final name appears only on a complete archive.

The file under construction is `<name>.tar.gz.partial`, locked by the process that began it, with a journal beside it that says
where each step's segment lies. A retried step cuts back to its own beginning. Sealing writes the sidecar first and the
archive's final name last, so that a crash leaves either a leftover for `reclaim_partials` or a complete archive. That is why it is
one long module: names, locks and journals are held and given up together, and nobody else may touch them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.compression import THREADS
from tasks.adapters.archive.sealed_sink import SealedSink, Sealing, seal_first
from tasks.adapters.archive.segment import OnBytes, Segment
from tasks.adapters.archive.sink import Sink
from tasks.adapters.archive.source import FileStream, HashingReader
from tasks.adapters.host.files import (
    claimed_file,
    fsync_directory,
    make_directory,
    names_file,
    reclaim_temporaries,
    rename_no_replace,
    try_lock,
    write_all,
    write_atomically,
    write_error,
)
from tasks.adapters.host.outside_files import ARCHIVE_JOURNAL, read_outside
from tasks.core.archive.bulk import summed_up
from tasks.core.archive.layout import MANIFEST_NAME
from tasks.core.archive.manifest import Format, Manifest, Member, Record, written
from tasks.core.archive.names import ALL_EXTENSIONS, EXTENSIONS, PARTIAL_EXTENSION, RECORD_EXTENSION, time_in_name
from tasks.core.archive.sealed_layout import SECRET_BYTES
from tasks.core.archive.segments import (
    JOURNAL_EXTENSION,
    FinishedSegment,
    PartialArchive,
    journal_line,
    missing_and_extra,
    partial_path,
    read_journal,
)
from tasks.core.archive.tar_writer import END_BLOCKS, stored_segment, tar_header
from tasks.core.errors import BackupError, NameTaken

__all__ = [
    "PartialArchive",
    "Sealed",
    "abandon_archive",
    "begin_archive",
    "reclaim_partials",
    "seal_archive",
    "segment",
]

logger = logging.getLogger(__name__)

_SEAL = "manifest and end"
_TOP = "top directory"
_held: dict[Path, int] = {}
"""The locked descriptors of the archives this process builds. The kernel lets go of them when it dies."""
_sealings: dict[Path, Sealing] = {}
"""How the encrypted ones among them are encrypted; the secret of an archive's parts is in no journal."""
_busy: set[Path] = set()
_guard = threading.Lock()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A complete archive under its final name. That it can be *read* is proven by `check_archive` only."""

    path: Path
    bytes: int
    sha256: str
    record: Record


def begin_archive(
    repository: Path,
    name: str,
    archive_format: Format,
    recipients: tuple[str, ...] = (),
    *,
    verification_key: str = "",
) -> PartialArchive:
    """Begin an archive, making the repository where it is missing; raise NameTaken where anything of that name exists.

    With recipients it is encrypted to them, part by part as it is written; raise BackupError where that cannot be done.
    Of two runs that begin the same name at the same moment, the loser removes nothing: only what this call itself has made is its own.
    """
    place = partial_path(repository, name, archive_format, sealed=bool(recipients))
    partial = PartialArchive(place, name, archive_format, recipients, verification_key)
    try:
        make_directory(repository)
        descriptor = _create_locked(partial.path)
    except FileExistsError:
        raise _taken(partial.path) from None
    except OSError as error:
        raise write_error(partial.path, error, written_bytes=0) from error
    _held[partial.path] = descriptor
    if recipients:
        _sealings[partial.path] = Sealing(name, archive_format, recipients, secrets.token_hex(SECRET_BYTES))
    try:
        # Only now that the name is claimed: what another run seals meanwhile would be seen neither before nor after.
        others = [repository / (name + extension) for extension in (*ALL_EXTENSIONS, RECORD_EXTENSION)]
        others += [
            partial_path(repository, name, each, sealed=sealed) for each in EXTENSIONS for sealed in (False, True)
        ]
        others.remove(partial.path)
        for path in others:
            if os.path.lexists(path):
                raise _taken(path)
        # A journal that stands here is a dead run's: a living one would hold the name.
        _append_to_file(partial.journal_path, "", os.O_CREAT | os.O_TRUNC)
        fsync_directory(repository)
        moment = time_in_name(name) or datetime.now(UTC)
        header = tar_header(name, kind="directory", mode=0o700, mtime_seconds=int(moment.timestamp()))
        sink, parts = Sink(partial.path, descriptor, 0), 0
        top = stored_segment(header, archive_format)
        if recipients:
            parts = seal_first(sink, _sealings[partial.path], top)
        else:
            sink.write(top)
        done = FinishedSegment(_TOP, 0, sink.position, (), (), parts)
        _append_to_file(partial.journal_path, journal_line(done) + "\n")
    except NameTaken:
        _remove_own(partial.path, descriptor)
        _let_go(partial)
        raise
    except OSError as error:
        _remove(partial)
        raise write_error(partial.path, error, written_bytes=0) from error
    except BackupError:
        _remove(partial)
        raise
    return partial


def _taken(path: Path) -> NameTaken:
    return NameTaken(f"{path} exists already and is not overwritten", hint="try again: a second later the name differs")


@contextlib.contextmanager
def segment(
    partial: PartialArchive,
    name: str,
    *,
    level: int | None = None,
    threads: int = THREADS,
    on_bytes: OnBytes | None = None,
) -> Iterator[Segment]:
    """Append one step's part to the archive; run again under the same name, it replaces its former attempt and all after it.

    Left normally, the part is on the disk and stands. Left by an error, it is cut off again (so its space is free) and the error
    passes through; a failed write arrives as BackupError.
    """
    descriptor = _take(partial)
    try:
        valid = _valid_segments(partial)
        before = valid[: next((i for i, each in enumerate(valid) if each.name == name), len(valid))]
        begins = before[-1].ends
        with _writing(partial, descriptor):
            _append_to_file(partial.journal_path, json.dumps({"segment": name, "begins": begins}) + "\n")
            _cut(descriptor, begins)
        taken = [MANIFEST_NAME] if name != _SEAL else []
        taken += [each for done in before for each in (*done.directories, *(member.name for member in done.members))]
        sink = Sink(partial.path, descriptor, begins)
        if partial.recipients:
            parts_before = sum(each.parts for each in before)
            sink = SealedSink(sink, _sealings[partial.path], before=parts_before, is_last=name == _SEAL)
        written = Segment(
            sink, partial.name, partial.format, taken=taken, level=level, threads=threads, on_bytes=on_bytes
        )
        try:
            yield written
            written.finish()
            parts = sink.parts if isinstance(sink, SealedSink) else 0
            done = FinishedSegment(
                name, begins, sink.position, tuple(written.members), tuple(written.directories), parts
            )
            with _writing(partial, descriptor):
                os.fdatasync(descriptor)
                _append_to_file(partial.journal_path, journal_line(done) + "\n")
        except BaseException:
            with contextlib.suppress(OSError, ValueError, BackupError):
                written.give_up()
            with contextlib.suppress(OSError):
                _cut(descriptor, begins)
            raise
        logger.debug("segment %s: %d bytes made of %d", name, done.ends - begins, written.raw_bytes)
    finally:
        with _guard:
            _busy.discard(partial.path)


@contextlib.contextmanager
def _writing(partial: PartialArchive, descriptor: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(partial.path, error, written_bytes=_size_of(descriptor)) from error


def written_members(partial: PartialArchive) -> list[Member]:
    """Give the members of all segments that stand, in their order: what the manifest has to list."""
    return [member for done in _valid_segments(partial) for member in done.members]


def seal_archive(
    partial: PartialArchive,
    manifest: Manifest,
    *,
    seconds: float = 0.0,
    on_bytes: OnBytes | None = None,
    sign: Callable[[Record], Record] | None = None,
) -> Sealed:
    """Add the manifest, bring all to the disk, read it back for its SHA-256, and give the archive its final name.

    Raise BackupError where the manifest does not list exactly what was written. Can be run again after an error.
    """
    if manifest.name != partial.name or manifest.format != partial.format:
        raise BackupError(f"the manifest is of {manifest.name} ({manifest.format}), the archive is {partial.name}")
    sealed_before = [done.name for done in _valid_segments(partial)]
    members = [member for done in _valid_segments(partial) if done.name != _SEAL for member in done.members]
    if manifest.bulk is not None:
        members, bulk = summed_up(members)
        if bulk != manifest.bulk:
            raise BackupError(f"the manifest of {partial.name} sums up {manifest.bulk}, written was {bulk}")
    if difference := missing_and_extra(members, manifest.members):
        raise BackupError(
            f"the manifest of {partial.name} does not list what was written: {difference}",
            hint=f"the segments written are: {', '.join(sealed_before)}",
        )
    with segment(partial, _SEAL) as end:
        text = written(manifest)
        end.add_bytes(MANIFEST_NAME, text, mtime=manifest.created_at)
        end.append_raw(END_BLOCKS)
    descriptor = _held[partial.path]
    with _writing(partial, descriptor):
        os.fsync(descriptor)
        size, digest = _read_back(descriptor, on_bytes)
        record = Record(
            file=partial.final_path.name,
            bytes=size,
            sha256=digest,
            seconds=seconds,
            manifest=manifest,
            verification=None,
        )
        if sign is not None:
            record = sign(record)
        write_atomically(partial.record_path, written(record))
        rename_no_replace(partial.path, partial.final_path)
        fsync_directory(partial.repository)
        partial.journal_path.unlink(missing_ok=True)
    _let_go(partial)
    return Sealed(partial.final_path, size, digest, record)


def abandon_archive(partial: PartialArchive) -> None:
    """Remove all that was written of an archive; do nothing where it was sealed or removed already."""
    if partial.path in _held:
        _remove(partial)


def reclaim_partials(repository: Path) -> list[Path]:
    """Remove what runs that died left in a repository, and name it. Archives that a living process builds stay.

    Alive is who holds the kernel's lock on the partial file: nothing that a reused process id or a clock could fake. What belongs to a
    partial file goes while we hold its name, so that nobody can begin an archive of that name in between.
    """
    if not repository.is_dir():
        return []
    removed = reclaim_temporaries(repository)
    for extension in ALL_EXTENSIONS:
        for path in sorted(repository.glob(f"*{extension}{PARTIAL_EXTENSION}")):
            if path not in _held:
                removed += _reclaim(path, extension)
    for journal in sorted(repository.glob(f"*{PARTIAL_EXTENSION}{JOURNAL_EXTENSION}")):
        try:
            claim = _create_locked(journal.with_name(journal.name.removesuffix(JOURNAL_EXTENSION)))
        except (FileExistsError, BackupError):
            continue
        os.close(claim)
        removed += _reclaim(journal.with_name(journal.name.removesuffix(JOURNAL_EXTENSION)), "")
    if removed:
        fsync_directory(repository)
    return removed


def _reclaim(path: Path, extension: str) -> list[Path]:
    """Remove a partial file that nobody holds, with its journal and the record that a crash left before the archive's final name."""
    with claimed_file(path) as ours:
        if not ours:
            return []
        stem = path.name.removesuffix(extension + PARTIAL_EXTENSION)
        belongings = [path.with_name(path.name + JOURNAL_EXTENSION)]
        if extension and not any((path.parent / (stem + each)).exists() for each in ALL_EXTENSIONS):
            belongings.append(path.with_name(stem + RECORD_EXTENSION))
        for each in belongings:
            each.unlink(missing_ok=True)
        path.unlink()
        return [path]


def _create_locked(path: Path) -> int:
    """Make a file of this name, locked; raise FileExistsError where there is one, and then touch nothing."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    # Another run's `reclaim_partials` may have taken our lock, and the file, in the moment between these two lines.
    if not try_lock(descriptor) or os.fstat(descriptor).st_nlink == 0:
        os.close(descriptor)
        raise BackupError(f"{path} was reclaimed by another run at its very start", transient=True)
    return descriptor


def _take(partial: PartialArchive) -> int:
    with _guard:
        if partial.path not in _held:
            raise BackupError(
                f"{partial.path} is not under construction in this process",
                hint="an archive is begun, written and sealed by one process; begin a new one",
            )
        if partial.path in _busy:
            raise BackupError(f"another segment of {partial.path} is being written")
        _busy.add(partial.path)
        return _held[partial.path]


def _valid_segments(partial: PartialArchive) -> tuple[FinishedSegment, ...]:
    try:
        text, _ = read_outside(partial.journal_path, ARCHIVE_JOURNAL)
        return read_journal(text.decode("utf-8").splitlines())
    except OSError as error:
        raise BackupError(f"the journal of {partial.path} cannot be read: {error.strerror}") from error


def _append_to_file(path: Path, text: str, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    size = os.fstat(descriptor).st_size
    try:
        write_all(descriptor, text.encode("utf-8"))
        os.fdatasync(descriptor)
    except OSError:
        # A full disk may have taken half a line.
        os.ftruncate(descriptor, size)
        raise
    finally:
        os.close(descriptor)


def _cut(descriptor: int, length: int) -> None:
    os.ftruncate(descriptor, length)
    os.lseek(descriptor, length, os.SEEK_SET)


def _read_back(descriptor: int, on_bytes: OnBytes | None) -> tuple[int, str]:
    # What the disk holds counts, not what memory remembers: drop the (already written) pages first.
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    reader = HashingReader(FileStream(descriptor))
    while reader.read():
        if on_bytes is not None:
            on_bytes(reader.count, reader.count)
    return reader.count, reader.hexdigest()


def _size_of(descriptor: int) -> int:
    with contextlib.suppress(OSError):
        return os.fstat(descriptor).st_size
    return 0


def _remove(partial: PartialArchive) -> None:
    """Remove what this process wrote of an archive; where another file has its name by now, nothing of that name is ours."""
    descriptor = _held[partial.path]
    try:
        if names_file(partial.path, descriptor):
            partial.journal_path.unlink(missing_ok=True)
            if not partial.final_path.exists():
                partial.record_path.unlink(missing_ok=True)
            _remove_own(partial.path, descriptor)
    finally:
        _let_go(partial)
    with contextlib.suppress(OSError):
        fsync_directory(partial.repository)


def _remove_own(path: Path, descriptor: int) -> None:
    if names_file(path, descriptor):
        path.unlink(missing_ok=True)


def _let_go(partial: PartialArchive) -> None:
    with _guard:
        descriptor = _held.pop(partial.path, None)
        _sealings.pop(partial.path, None)
    if descriptor is not None:
        os.close(descriptor)
