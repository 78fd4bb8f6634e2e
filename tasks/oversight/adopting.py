"""Adopt what is rightly there but does not count: archives from before they were signed, replays, and dates that a wrong clock gave."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.adapters.archive.identity import MadeList, read_identity, require_key
from tasks.adapters.archive.ownership import authenticity_of_archive, next_place, note_made, sign_anew
from tasks.adapters.archive.reader import CheckedArchive
from tasks.adapters.archive.repository import Backup, find_backup, list_backups, split_name, write_record
from tasks.adapters.archive.repository_marker import require_repository
from tasks.core.archive.authenticity import Authenticity, authenticity_of
from tasks.core.archive.manifest import Record
from tasks.core.archive.signatures import public_key
from tasks.core.errors import Refused, UsageError
from tasks.core.policy.clocks import is_ahead
from tasks.core.report.others import made_before
from tasks.restore.check_archive import check_backup
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import look_at, trust_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was done with one backup, in words; `refused` where nothing was."""

    backup: str
    what: str
    refused: bool = False


def adoptable(config: InstallationConfig) -> list[str]:
    """Name the backups that are adopted without being named: unsigned, of this installation, and dated before it signed anything."""
    require_repository(config.repository)
    backups = list_backups(config.repository)
    own = look_at(config, backups, now=datetime.now(UTC))
    made_at = read_identity(config.id, config.directory).made_at
    return [
        each.name
        for each in backups
        if each.record is not None and own.authenticity[each.name].state == "unsigned" and made_before(each.created, made_at)
    ]  # fmt: skip


def adopt(config: InstallationConfig, names: Sequence[str], *, now: datetime) -> list[Adopted]:
    """Check each archive whole and sign its record; of one that is ours already, take its date as right. The caller holds the lock."""
    require_repository(config.repository)
    done = []
    for name in names:
        path = find_backup(config.repository, name)
        found = authenticity_of_archive(trust_of(config), path)
        if found.chain == "outdated":
            done.append(Adopted(split_name(path), f"not adopted: {found.reason}", refused=True))
            continue
        if found.is_own:
            done.append(Adopted(split_name(path), _confirm_date(config, path, now)))
            continue
        if found.state in ("foreign", "forged"):
            done.append(Adopted(split_name(path), f"{found}: {found.reason}; it is not adopted", refused=True))
            continue
        try:
            done.append(
                Adopted(split_name(path), _sign(config, check_backup(config.repository, name, of_system=True), found))
            )
        except Refused as error:
            done.append(Adopted(split_name(path), f"not adopted: {error.message}", refused=True))
    return done


def dismiss(config: InstallationConfig, names: Sequence[str]) -> list[Adopted]:
    """Leave backups that a wrong clock has dated out of account: they neither count nor hold anything back.

    The caller holds the lock.
    """
    require_repository(config.repository)
    done = []
    for name in names:
        path = find_backup(config.repository, name)
        if not authenticity_of_archive(trust_of(config), path).counts:
            raise Refused(f"{name} does not count anyway", hint="`mailarchiver-backup list` says why")
        record = _record_of(config, path)
        key = _key_for(config, record)
        write_record(path, _signed(config, record.model_copy(update={"dismissed": True}), key))
        _remember(config, key, record, state="dismissed")
        done.append(
            Adopted(record.manifest.name, "counts for nothing from now on; remove the files by hand when you like")
        )
    return done


def _confirm_date(config: InstallationConfig, path: Path, now: datetime) -> str:
    """Take a backup's date as right.

    One dated after now gets the date of the backup made before it: the latest that can be proven.
    """
    record = _record_of(config, path)
    created = record.manifest.created_at
    if is_ahead(created, now):
        created = _before(config, record, now)
    update = {"dated": created, "dismissed": False}
    key = _key_for(config, record)
    write_record(path, _signed(config, record.model_copy(update=update), key))
    _remember(config, key, record)
    return f"counts as of {created:%Y-%m-%d %H:%M:%S} UTC"


def _before(config: InstallationConfig, record: Record, now: datetime) -> datetime:
    sequence = record.manifest.origin.sequence if record.manifest.origin else 0
    own = look_at(config, list_backups(config.repository), now=now)
    earlier = [each for each in own.records if each.manifest.origin and each.manifest.origin.sequence < sequence]
    newest = max((each.manifest.created_at for each in earlier), default=None)
    return newest + timedelta(seconds=1) if newest is not None else now


def _sign(config: InstallationConfig, archive: CheckedArchive, found: Authenticity) -> str:
    """Sign the record of an archive that was read whole; one whose record is lost gets one from its own manifest."""
    manifest = archive.manifest
    if manifest is None:
        raise Refused(f"{archive.path.name} has no manifest: nothing says what it must hold", hint="back up anew")
    if manifest.installation != config.id:
        raise Refused(f"{archive.path.name} is of the installation {manifest.installation!r}, not of {config.id!r}")
    judged = authenticity_of(trust_of(config), None, manifest)
    if judged.state in ("foreign", "forged"):
        raise Refused(f"{archive.path.name} is {judged.state}: {judged.reason}")
    if split_name(archive.path) != manifest.name:
        raise Refused(f"{archive.path.name} is {manifest.name} under another name", hint="give it its own name back")
    # A verdict that nobody signed proves nothing: only the bytes were read here.
    seconds = archive.record.seconds if archive.record else 0.0
    record = Record(
        file=archive.path.name, bytes=archive.bytes, sha256=archive.sha256, seconds=seconds, manifest=manifest
    )
    key = _key_for(config, record)
    write_record(archive.path, _signed(config, record, key))
    _remember(config, key, record)
    logger.info("Adopted %s (it was %s)", manifest.name, found)
    return f"checked, and signed: it counts from now on, as verified after `verify {manifest.name}`"


def _key_for(config: InstallationConfig, record: Record) -> bytes:
    known = read_identity(config.id, config.directory)
    return require_key(
        config.id, config.directory, project=known.project or record.manifest.project,
        system_identifier=known.system_identifier or record.manifest.database.system_identifier,
    )  # fmt: skip


def _signed(config: InstallationConfig, record: Record, key: bytes) -> Record:
    return sign_anew(read_identity(config.id, config.directory).place, config.repository, record, key)


def _remember(config: InstallationConfig, key: bytes, record: Record, *, state: str = "") -> None:
    place = read_identity(config.id, config.directory).place
    made, _ = next_place(public_key(key), place, config.repository)
    note_made(place, config.repository, MadeList(made.key, made.sequence, made.entries), record.manifest, state=state)


def _record_of(config: InstallationConfig, path: Path) -> Record:
    found = next((each for each in list_backups(config.repository) if each.path == path and each.record), None)
    if not isinstance(found, Backup) or found.record is None:
        raise UsageError(f"there is no backup {path.name} in {config.repository}", hint="mailarchiver-backup list")
    return found.record
