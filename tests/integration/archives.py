"""Small archives for tests, made by the writer itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.writer import PartialArchive, Sealed, begin_archive, seal_archive, segment, written_members
from tasks.core.archive.manifest import DatabaseFacts, Format, Manifest
from tasks.core.policy.settings import InstallationSettings, Retention
from tasks.run.config import InstallationConfig

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
