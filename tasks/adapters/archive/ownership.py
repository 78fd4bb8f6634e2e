"""Judge the archives of a repository: whose they are (`tasks/core/archive/authenticity.py`), and keep the list of what was made there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tasks.adapters.archive.archive_source import read_record_beside
from tasks.adapters.archive.identity import (
    Made,
    MadeList,
    forget_revisions,
    next_revision,
    read_identity,
    read_made,
    write_made,
)
from tasks.adapters.archive.reader import CheckedArchive
from tasks.adapters.archive.repository import Backup, list_backups
from tasks.core.archive.authenticity import (
    Authenticity,
    Trust,
    authenticity_of,
    manifest_digest,
    places_of,
    sign_record,
    with_chain,
)
from tasks.core.archive.manifest import Manifest, Record
from tasks.core.archive.names import split_archive_name
from tasks.core.errors import BackupError


def judge_backups(trust: Trust, backups: Sequence[Backup]) -> dict[str, Authenticity]:
    """Classify the backups of a repository, each by its name."""
    found = {each.name: _of_backup(trust, each) for each in backups}
    own = {each.name: each.record.manifest for each in backups if each.record and found[each.name].state == "authentic"}
    places = places_of(own.values())
    return {name: with_chain(trust, places, own[name], each) if name in own else each for name, each in found.items()}


def authenticity_of_archive(trust: Trust, path: Path) -> Authenticity:
    """Classify one archive by the record beside it; without one nothing is known before it was read (`authenticity_of_checked`)."""
    split = split_archive_name(path.name)
    try:
        record = read_record_beside(path)
    except BackupError as error:
        return Authenticity("unsigned", f"its record cannot be read: {error.message}")
    return authenticity_of(trust, record, name=split[0] if split else "", file_bytes=path.stat().st_size)


def authenticity_of_checked(trust: Trust, archive: CheckedArchive) -> Authenticity:
    """Classify an archive that was read: by its record, and by the signature in its own manifest where it has none."""
    split = split_archive_name(archive.path.name)
    name = split[0] if split else archive.name
    return authenticity_of(trust, archive.record, archive.manifest, name=name, file_bytes=archive.bytes)


def _of_backup(trust: Trust, backup: Backup) -> Authenticity:
    if backup.record is not None:
        return authenticity_of(trust, backup.record, name=backup.name, file_bytes=backup.bytes)
    return authenticity_of_archive(trust, backup.path)


def next_place(key: str, place: Path, repository: Path) -> tuple[MadeList, str]:
    """Give what was made in a repository so far with this key, and the digest of the newest of it ("" for none).

    Where this host does not know (a state directory that was lost, another key before), what lies there with our signature is it. An
    entry that was being sealed when its run died, and has no archive, never was.
    """
    made = read_made(place, repository)
    if made is None or made.key != key:
        made = _made_of(key, repository)
    there = names_in(repository)
    entries = tuple(
        replace(each, state="") if each.state == "sealing" else each
        for each in made.entries
        if each.state != "sealing" or each.name in there
    )
    newest = max(entries, key=lambda each: each.sequence, default=None)
    return replace(made, entries=entries), newest.digest if newest else ""


def note_made(place: Path, repository: Path, made: MadeList, manifest: Manifest, *, state: str = "") -> None:
    """Remember a backup as made here."""
    origin = manifest.origin
    sequence = origin.sequence if origin else 0
    entry = Made(manifest.name, manifest_digest(manifest), sequence, state)
    others = tuple(each for each in made.entries if each.name != manifest.name)
    write_made(place, repository, MadeList(made.key, max(made.sequence, sequence), (*others, entry)))


def note_sealed(place: Path, repository: Path, name: str) -> None:
    """Note that a backup which was being sealed is whole."""
    _rewrite(place, repository, {name: ""})


def sign_anew(place: Path, repository: Path, record: Record, key: bytes) -> Record:
    """Sign a record that is to take the place of the one before, and remember its revision: no older one counts from now on."""
    revision = next_revision(place, repository, record.manifest.name, record.revision)
    return sign_record(record.model_copy(update={"revision": revision}), key)


def mark_removing(place: Path, repository: Path, names: Sequence[str]) -> None:
    """Note that these are about to be removed: from now on nobody misses them."""
    _rewrite(place, repository, dict.fromkeys(names, "removing"))


def forget_removed(place: Path, repository: Path) -> None:
    """Forget those that were to be removed and are gone."""
    made = read_made(place, repository)
    if made is None:
        return
    there = names_in(repository)
    gone = [each.name for each in made.entries if each.state == "removing" and each.name not in there]
    forget_revisions(place, repository, gone)
    left = tuple(each for each in made.entries if each.state != "removing" or each.name in there)
    write_made(place, repository, replace(made, entries=left))


def missed(installation: str, directory: Path, repository: Path) -> set[str]:
    """Give the names whose absence is a problem: what was made, is whole, and was not to be removed."""
    made = read_made(read_identity(installation, directory).place, repository)
    return {each.name for each in made.entries if not each.state} if made is not None else set()


def names_in(repository: Path) -> set[str]:
    """Name the archives in a repository without reading a record."""
    if not repository.is_dir():
        return set()
    found = [(path, split_archive_name(path.name)) for path in repository.iterdir()]
    return {split[0] for path, split in found if split is not None and path.is_file() and not path.is_symlink()}


def _rewrite(place: Path, repository: Path, states: Mapping[str, str]) -> None:
    made = read_made(place, repository)
    if made is not None:
        entries = tuple(replace(each, state=states.get(each.name, each.state)) for each in made.entries)
        write_made(place, repository, replace(made, entries=entries))


def _made_of(key: str, repository: Path) -> MadeList:
    records: list[Record] = []
    for each in list_backups(repository):
        about = each.record
        if about is None or about.signature is None or about.signature.key != key:
            continue
        trust = Trust(about.manifest.installation, key)
        if authenticity_of(trust, about, name=each.name, file_bytes=each.bytes).state == "authentic":
            records.append(about)
    entries = [
        Made(each.manifest.name, manifest_digest(each.manifest), each.manifest.origin.sequence if each.manifest.origin else 0)
        for each in sorted(records, key=lambda each: each.manifest.origin.sequence if each.manifest.origin else 0)
    ]  # fmt: skip
    return MadeList(key, max((each.sequence for each in entries), default=0), tuple(entries))
