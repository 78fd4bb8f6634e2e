"""The archives that an incremental one needs: found beside it, and known by the SHA-256 that its own manifest gives them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.adapters.archive.archive_source import source_of
from tasks.adapters.archive.reader import Archive, check_archive, check_while, recorded_archive
from tasks.core.archive.manifest import Link
from tasks.core.archive.names import split_archive_name
from tasks.core.errors import ArchiveDamaged, Refused

MISSING_HINT = (
    "bring that archive back (is it at a target? `--from TARGET` reads all of them there), or take another backup"
)


def parents_of(archive: Archive) -> tuple[Archive, ...]:
    """Find the archives that one needs, the full one first; none for one that is whole by itself.

    They are described by their records, and still to be checked. Raise ArchiveDamaged, naming the link, where one is missing or
    another than it was when the archive was made.
    """
    manifest = archive.manifest
    if manifest is None or not manifest.is_incremental:
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


@contextmanager
def named_as_link(link: Archive, of: Archive) -> Iterator[None]:
    """Name the link in what is found to be wrong with it within the block, and for which backup it was read."""
    try:
        yield
    except ArchiveDamaged as error:
        error.message = f"{link.path.name}, which {of.name} builds on, is not what was sealed: {error.message}"
        raise


def _link(archive: Archive, link: Link) -> Archive:
    split = split_archive_name(link.file)
    if split is None or split[0] != link.name or "/" in link.file:
        raise ArchiveDamaged(f"{archive.path.name} needs {link.file!r}, which is no archive's name", hint=MISSING_HINT)
    path = archive.path.with_name(link.file)
    if source_of(path).bytes is None:
        raise ArchiveDamaged(f"{archive.path.name} needs {link.file}, which is missing", hint=MISSING_HINT)
    # Without a record that fits, only all of its bytes tell which archive it is.
    found = recorded_archive(path) or check_archive(path)
    if found.sha256 != link.sha256:
        raise ArchiveDamaged(
            f"{archive.path.name} needs {link.file} with SHA-256 {link.sha256}; the one here has {found.sha256}",
            hint=MISSING_HINT,
        )
    return found
