"""Which backups of a repository are an installation's own: authentic, and of this installation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.adapters.archive.identity import private_key, read_identity, read_trust
from tasks.adapters.archive.ownership import judge_backups, sign_anew
from tasks.adapters.archive.repository import Backup, list_backups
from tasks.adapters.archive.repository_marker import require_repository
from tasks.core.archive.authenticity import Authenticity, Trust, authenticity_of
from tasks.core.archive.manifest import Record
from tasks.core.errors import UsageError
from tasks.core.policy.chains import needs_of
from tasks.core.policy.clocks import is_ahead
from tasks.core.policy.due import stalest
from tasks.core.policy.retention import Candidate, Proof
from tasks.run.config import InstallationConfig

DISMISSED = "it was dismissed: a clock was wrong when it was made"


@dataclass(frozen=True, slots=True)
class OwnBackups:
    """A repository as an installation sees it.

    `records` are its own, newest first, with the dates that count and none after now; `candidates` are all, as
    retention sees them; `ahead` are its own that are dated after now. `system` are its own backups of the system around
    (of a guest, say): no backups of the mail database, and so never among `records`.
    """

    records: tuple[Record, ...]
    candidates: tuple[Candidate, ...]
    ahead: tuple[str, ...]
    authenticity: Mapping[str, Authenticity]
    trust: Trust
    keys: tuple[str, ...]
    system: tuple[Record, ...] = ()

    def signed_with(self, key: str) -> int:
        """Count the backups that a key has made."""
        return self.keys.count(key)


def trust_of(config: InstallationConfig) -> Trust:
    """Give what an installation's backups in its repository are judged by: its key, those it trusts, and what this host made there."""
    return read_trust(config.id, config.directory, config.archives, config.settings.trusted_keys)


def look_at(
    config: InstallationConfig, backups: Sequence[Backup], *, now: datetime, trust: Trust | None = None
) -> OwnBackups:
    """Judge backups: which are this installation's own and count, and which are kept out of every decision, and why.

    Those of another place than the repository are judged by a `trust` of their own.
    """
    trust = trust or trust_of(config)
    judged = judge_backups(trust, backups)
    candidates = tuple(_candidate(each, judged[each.name]) for each in backups)
    own = {each.name for each in candidates if not each.foreign}
    records = [_dated(each.record) for each in backups if each.record is not None and each.name in own]
    records.sort(key=lambda each: (each.manifest.created_at, each.manifest.name), reverse=True)
    present = [each for each in records if not is_ahead(each.manifest.created_at, now)]
    return OwnBackups(
        tuple(each for each in present if not each.manifest.is_system),
        candidates,
        tuple(each.manifest.name for each in records if is_ahead(each.manifest.created_at, now)),
        judged,
        trust,
        tuple(each.record.signature.key for each in backups if each.record is not None and each.record.signature),
        tuple(each for each in present if each.manifest.is_system),
    )


def own_records(config: InstallationConfig, *, now: datetime) -> tuple[Record, ...]:
    """Give the records of the backups in the repository that count for this installation, newest first."""
    return look_at(config, list_backups(config.repository), now=now).records


def choose_backup(
    config: InstallationConfig, backup: str, can_be_opened: Callable[[Record], bool] | None = None
) -> str:
    """Turn "latest" and "stalest" into a name: of the backups that count for this installation the newest, or the one verified longest ago.

    Any other word stands for itself. Of encrypted ones the stalest is chosen among those that `can_be_opened`, as long as there are any.
    """
    if backup not in ("latest", "stalest"):
        return backup
    require_repository(config.archives)
    own = look_at(config, list_backups(config.archives), now=datetime.now(UTC))
    openable = [each for each in own.records if can_be_opened is None or can_be_opened(each)]
    found = own.records[0] if backup == "latest" and own.records else stalest(openable or own.records)
    if found is None:
        count = sum(not each.subject for each in own.candidates)
        others = f"; {count} others are there" if count else ""
        raise UsageError(
            f"there is no backup of {config.id} {'at the target' if config.elsewhere else f'in {config.repository}'}{others}",
            hint="`mailarchiver-backup list` says whose they are: name one, or `adopt` it"
            if others
            else "mailarchiver-backup backup hot",
        )
    return found.manifest.name


def resign(config: InstallationConfig) -> Callable[[Record, Record], Record | None]:
    """Give what signs a changed record anew, as `repository` asks: only what was authentic before is signed.

    A record that nobody signed stays so. One that another key signed and this host may not sign is not changed at all (None): its
    signature would no longer hold.
    """
    trust, private = trust_of(config), private_key(config.id, config.directory)
    place = read_identity(config.id, config.directory).place

    def sign(before: Record, after: Record) -> Record | None:
        if before.signature is None:
            return after
        if private is None or authenticity_of(trust, before).state != "authentic":
            return None
        return sign_anew(place, config.repository, after, private)

    return sign


def _dated(record: Record) -> Record:
    """Give a record the date that somebody has said it is of."""
    if record.dated is None:
        return record
    return record.model_copy(update={"manifest": record.manifest.model_copy(update={"created_at": record.dated})})


def _candidate(backup: Backup, found: Authenticity) -> Candidate:
    if backup.record is None:
        created = backup.created or datetime.fromtimestamp(backup.path.stat().st_mtime, UTC)
        reason = found.reason or "it has no record of this program"
        return Candidate(backup.name, created, foreign=f"{reason}: not ours to remove")
    record = _dated(backup.record)
    manifest, verdict = record.manifest, record.verification
    proof: Proof = "unverified"
    if record.verified:
        proof = "verified"
    elif record.refuted:
        proof = "refuted"
    rows = None
    if record.verified and verdict is not None:
        rows = verdict.rows
    elif manifest.census is not None:
        rows = sum(table.rows for table in manifest.census.tables.values())
    foreign = "" if found.counts else f"{found}: {found.reason}"
    return Candidate(
        backup.name, manifest.created_at, proof, foreign=DISMISSED if record.dismissed and not foreign else foreign, rows=rows,
        database_bytes=manifest.database.size_bytes or None, accepted=record.content_accepted, confirmed=record.dated is not None,
        needs=needs_of(record), subject=manifest.subject,
    )  # fmt: skip
