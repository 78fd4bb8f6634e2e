"""The archives that an incremental one needs: found beside it, and known by the SHA-256 that its own manifest gives them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.adapters.archive.archive_source import source_of
from tasks.adapters.archive.opening import check_sealed
from tasks.adapters.archive.reader import Archive, check_archive, check_while, recorded_archive
from tasks.core.archive.manifest import Link, Record
from tasks.core.archive.names import is_sealed, split_archive_name
from tasks.core.errors import ArchiveDamaged, Refused

MISSING_HINT = (
    "bring that archive back (is it at a target? `--from TARGET` reads all of them there), or take another backup"
)


def is_chained(archive: Archive) -> bool:
    """Tell whether an archive needs others; whether they are there is not looked at."""
    return archive.manifest is not None and archive.manifest.is_incremental


def parents_of(archive: Archive) -> tuple[Archive, ...]:
    """Find the archives that one needs, the full one first; none for one that is whole by itself.

    They are described by their records, and still to be checked. Raise ArchiveDamaged, naming the link, where one is missing or
    another than it was when the archive was made.
    """
    manifest = archive.manifest
    if manifest is None or not is_chained(archive):
        return ()
    if archive.kind != "physical":
        raise Refused(f"{archive.path.name} names parents, and holds no data directory: that is no archive of ours")
    found = tuple(_link(archive, each) for each in manifest.parents)
    first = found[0].manifest
    if first is None or first.is_incremental:
        raise ArchiveDamaged(
            f"{archive.path.name} begins its chain with {found[0].path.name}, which is no full backup",
            hint=MISSING_HINT,
        )
    return found


def check_parents(archive: Archive) -> tuple[Archive, ...]:
    """Read every archive that one needs from its first byte to its last; raise ArchiveDamaged, naming the link, where one is not as it was sealed."""
    checked = []
    for each in parents_of(archive):
        with named_as_link(each, archive):
            checked.append(check_while(each, lambda _entry, _name, _pieces: None))
    return tuple(checked)


def check_sealed_parents(record: Record, path: Path) -> None:
    """Compare the encrypted archives that one needs with their records, unopened; raise ArchiveDamaged, naming the link, for one that is not what was sealed."""
    for link in record.manifest.parents:
        place = _place_of(path, link)
        found = check_sealed(place).sha256 if is_sealed(link.file) else check_archive(place).sha256
        _require(found == link.sha256, path.name, link, found)


@contextmanager
def named_as_link(link: Archive, of: Archive) -> Iterator[None]:
    """Name the link in what is found to be wrong with it within the block, and for which backup it was read."""
    try:
        yield
    except ArchiveDamaged as error:
        error.message = f"{link.path.name}, which {of.name} builds on, is not what was sealed: {error.message}"
        raise


def _link(archive: Archive, link: Link) -> Archive:
    path = _place_of(archive.path, link)
    # Without a record that fits, only all of its bytes tell which archive it is.
    found = recorded_archive(path) or check_archive(path)
    _require(found.sha256 == link.sha256, archive.path.name, link, found.sha256)
    return found


def _place_of(path: Path, link: Link) -> Path:
    split = split_archive_name(link.file)
    if split is None or split[0] != link.name or "/" in link.file:
        raise ArchiveDamaged(f"{path.name} needs {link.file!r}, which is no archive's name", hint=MISSING_HINT)
    place = path.with_name(link.file)
    if source_of(place).bytes is None:
        raise ArchiveDamaged(f"{path.name} needs {link.file}, which is missing", hint=MISSING_HINT)
    return place


def _require(equal: bool, needing: str, link: Link, found: str) -> None:
    if not equal:
        raise ArchiveDamaged(
            f"{needing} needs {link.file} with SHA-256 {link.sha256}; the one here has {found}", hint=MISSING_HINT
        )
