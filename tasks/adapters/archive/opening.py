"""How an archive is opened: its file as it is read, its content decrypted where it is encrypted; or its file alone, where no key is at hand."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.archive.archive_source import ArchiveSource, Identity, source_of
from tasks.adapters.archive.compression import detect_format
from tasks.adapters.archive.open_keys import keys_for
from tasks.adapters.archive.source import HashingReader, Readable
from tasks.adapters.archive.unsealing import NO_KEY_HINT, unsealed
from tasks.core.archive.manifest import Format, Record
from tasks.core.archive.sealed_layout import directory_in
from tasks.core.dump.foreign_dump import refuse_bare_dump
from tasks.core.errors import ArchiveDamaged, NoKey, Refused

HEAD_BYTES = 4096


def as_source(archive: Path | ArchiveSource) -> ArchiveSource:
    """Give what an archive is read from, where it may be named by its path."""
    return source_of(archive) if isinstance(archive, Path) else archive


@contextmanager
def opened_archive(
    source: ArchiveSource, *, quick: bool = False
) -> Iterator[tuple[HashingReader, Readable, Format, Identity]]:
    """Give the file as it is read, its content (decrypted, where it is encrypted), the content's format, and which file it is."""
    with source.opened() as opened, ExitStack() as stack:
        reader = HashingReader(opened.stream)
        content: Readable = reader
        if directory_in(reader.head(HEAD_BYTES)) is not None:
            content = stack.enter_context(closing(unsealed(reader, keys_for(source.path), source.path.name)))
        try:
            head = content.head(HEAD_BYTES)
        except NoKey as error:
            if not quick:
                _refuse_altered(source, reader)
            raise error
        refuse_bare_dump(_unpacked(head), str(source.path))
        archive_format = detect_format(head)
        if archive_format is None:
            raise ArchiveDamaged(
                f"{source.path.name} is neither gzip nor zstd: no archive, or its beginning is damaged"
            )
        yield reader, content, archive_format, opened.identity


def _refuse_altered(source: ArchiveSource, reader: HashingReader) -> None:
    """Raise ArchiveDamaged where a file that no key opens is not even what its record says: then the key may be right."""
    while reader.read():
        pass
    require_recorded(source.path, source.record(), reader.hexdigest())


def _unpacked(head: bytes) -> bytes:
    """Give the beginning of a file as it is when unpacked, as far as that is easily told."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return head


def require_recorded(path: Path, record: Record | None, sha256: str) -> None:
    """Raise ArchiveDamaged where a file is not the one that the record beside it describes."""
    if record is not None and record.file == path.name and record.sha256 != sha256:
        raise ArchiveDamaged(
            f"{path.name} has SHA-256 {sha256}, its record says {record.sha256}: the file was altered after it was sealed",
            hint="restore another backup; `mailarchiver-backup list` shows them",
        )


@dataclass(frozen=True, slots=True)
class SealedFile:
    """An encrypted archive of which only the file was looked at: it is what its record says, and nothing is known of its content."""

    path: Path
    sha256: str
    bytes: int
    record: Record


def check_sealed(archive: Path | ArchiveSource) -> SealedFile:
    """Read an encrypted archive's file without opening it, and compare it with its record.

    Raise ArchiveDamaged where it is not the file that was sealed, NoKey where no record says which that is.
    """
    source = as_source(archive)
    record = source.record()
    if record is None or record.file != source.path.name:
        raise NoKey(
            f"{source.path.name} is encrypted and has no record: without a key nothing can be told of it",
            hint=NO_KEY_HINT,
        )
    with source.opened() as opened:
        reader = HashingReader(opened.stream)
        while reader.read():
            pass
    require_recorded(source.path, record, reader.hexdigest())
    return SealedFile(source.path, reader.hexdigest(), reader.count, record)


def opens(archive: Path | ArchiveSource) -> bool:
    """Tell whether the keys at hand open an encrypted archive; only its first part is read."""
    try:
        with opened_archive(as_source(archive), quick=True):
            return True
    except Refused:
        return False
