"""Which backups of a repository are an installation's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tasks.adapters.archive.identity import read_trust
from tasks.adapters.archive.repository import Backup
from tasks.core.archive.authenticity import Trust
from tasks.core.archive.manifest import Record
from tasks.core.policy.retention import Candidate, Proof
from tasks.run.config import InstallationConfig


def trust_of(config: InstallationConfig) -> Trust:
    """Give what an installation's backups in its repository are judged by: its key, those it trusts, and what this host made there."""
    return read_trust(config.id, config.directory, config.repository, config.settings.trusted_keys)


def candidates_of(config: InstallationConfig, backups: Sequence[Backup]) -> list[Candidate]:
    """See backups as retention does. What this program did not make for this installation is foreign, whatever its name says."""
    return [candidate_of(config, each) for each in backups]


def own_records(config: InstallationConfig, backups: Sequence[Backup]) -> list[Record]:
    """Give the records of the backups that this program made for this installation, newest first."""
    own = {each.name for each in candidates_of(config, backups) if not each.foreign}
    return [each.record for each in backups if each.record is not None and each.name in own]


def candidate_of(config: InstallationConfig, backup: Backup) -> Candidate:
    record = backup.record
    if record is None:
        created = backup.created or datetime.fromtimestamp(backup.path.stat().st_mtime, UTC)
        return Candidate(backup.name, created, foreign="it has no record of this program: not ours to remove")
    manifest, found = record.manifest, record.verification
    foreign = ""
    if manifest.installation != config.id:
        foreign = f"it is of the installation {manifest.installation!r}, not of {config.id!r}"
    elif manifest.name != backup.name or record.bytes != backup.bytes:
        foreign = "it is not the file that its record describes"
    proof: Proof = "unverified"
    if record.verified:
        proof = "verified"
    elif found is not None and found.verdict in ("different", "failed"):
        proof = "refuted"
    rows = None
    if record.verified and found is not None:
        rows = found.rows
    elif manifest.census is not None:
        rows = sum(table.rows for table in manifest.census.tables.values())
    return Candidate(
        backup.name, manifest.created_at, proof, foreign=foreign, rows=rows,
        database_bytes=manifest.database.size_bytes or None, accepted=record.content_accepted,
    )  # fmt: skip
