"""Small archives for tests, made by the writer itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.identity import read_identity, require_key
from tasks.adapters.archive.ownership import next_place, note_made
from tasks.adapters.archive.repository import list_backups, write_verification
from tasks.adapters.archive.writer import PartialArchive, Sealed, begin_archive, seal_archive, segment, written_members
from tasks.adapters.outbox.history_file import append_history
from tasks.core.archive.authenticity import sign_manifest, sign_record
from tasks.core.archive.manifest import DatabaseFacts, Format, Manifest, Record, Verification
from tasks.core.archive.names import backup_name
from tasks.core.archive.signatures import public_key
from tasks.core.policy.history import Entry
from tasks.core.policy.settings import InstallationSettings, Retention
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import resign

NAME = "mailarchiver-backup-20260301-020005"
NOW = datetime(2026, 3, 1, 2, 0, 5, tzinfo=UTC)
DUMP = b"-- a dump\n" + b"COPY public.t (a) FROM stdin;\n1\n2\n\\.\n" * 300 + b"-- PostgreSQL database dump complete\n"


def manifest_of(partial: PartialArchive) -> Manifest:
    """Describe what was written, with invented facts about a database."""
    facts = DatabaseFacts(
        name="MailArchiver", owner="mailuser", encoding="UTF8", collation="C", character_type="C", server_version="17.2", server_major=17
    )  # fmt: skip
    return Manifest(
        version=1, name=partial.name, method="hot", format=partial.format, installation="main", project="mail", created_at=NOW,
        database=facts, images=[], members=written_members(partial),
    )  # fmt: skip


def installation_in(place: Path) -> InstallationConfig:
    """Give an installation `main` with a directory and no stack in it, which keeps its last three backups."""
    directory = place / "stack"
    directory.mkdir()
    wanted = InstallationSettings.model_construct(
        directory=directory, repository=place / "backups", retention=Retention(keep_last=3, minimum_verified=1)
    )
    return InstallationConfig("main", wanted)


def make_archive(
    repository: Path,
    archive_format: Format = "guide",
    *,
    name: str = NAME,
    members: Mapping[str, bytes] | None = None,
    recipients: tuple[str, ...] = (),
) -> Sealed:
    """Make a complete archive of a dump and other members, encrypted where there are recipients."""
    partial = begin_archive(repository, name, archive_format, recipients)
    with segment(partial, "dump") as seg:
        seg.add_stream("database.sql", [DUMP[:1000], DUMP[1000:]], mtime=NOW)
    with segment(partial, "configuration") as seg:
        seg.add_directory("data-protection-keys", mtime=NOW)
        for member, data in (
            members or {"data-protection-keys/key-1.xml": b"<key/>", "docker-compose.yml": b"services: {}\n"}
        ).items():
            seg.add_bytes(member, data, mtime=NOW)
    return seal_archive(partial, manifest_of(partial))


def back_up(
    config: InstallationConfig,
    at: datetime,
    *,
    verified: bool = True,
    signed: bool = True,
    dump: bytes = DUMP,
    recipients: tuple[str, ...] = (),
) -> Record:
    """Make a tiny real backup as the flow does: sealed, signed, remembered, verified."""
    config.repository.mkdir(exist_ok=True)
    name = backup_name(at, [b.name for b in list_backups(config.repository)])
    partial = begin_archive(config.repository, name, "guide", recipients)
    with segment(partial, "dump") as seg:
        seg.add_stream("database.sql", [dump], mtime=at)
    manifest = manifest_of(partial).model_copy(update={"created_at": at})
    if signed:
        key = require_key(config.id, config.directory, project="mail", system_identifier="7")
        place = read_identity(config.id, config.directory).place
        made, previous = next_place(public_key(key), place, config.repository)
        manifest = sign_manifest(manifest, key, sequence=made.sequence + 1, previous=previous)
        note_made(place, config.repository, made, manifest, state="sealing")
        sealed = seal_archive(partial, manifest, sign=lambda each: sign_record(each, key))
        note_made(place, config.repository, made, manifest)
    else:
        sealed = seal_archive(partial, manifest)
    if verified:
        write_verification(sealed.path, verdict(at, sealed.sha256), resign(config))
    append_history(config.id, Entry(run="hot backup", at=at, seconds=1, outcome="succeeded"))
    return sealed.record


def verdict(at: datetime, sha256: str) -> Verification:
    return Verification(
        verdict="verified", at=at, archive_sha256=sha256, rows=9, tables=1, attachments=0, differences=[], restore_seconds=1, seconds=1
    )  # fmt: skip
