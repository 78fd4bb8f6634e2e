"""Gather what stands on the recovery sheet of an installation."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime

import pyrage

from tasks.adapters.archive.identity import KEY_FILE_LIMIT_BYTES, read_identity
from tasks.adapters.host.outside_files import SIGNING_KEY, read_outside
from tasks.adapters.outbox.recovery_page import recovery_page
from tasks.core.archive.manifest import Record
from tasks.core.archive.recipients import short_recipient
from tasks.core.errors import UsageError
from tasks.core.report.recovery_sheet import SheetFacts
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import own_records

FORMATS = {"guide": "gzip", "fast": "zstd"}


def recovery_sheet(
    config: InstallationConfig, *, now: datetime, identities: Sequence[str] = (), with_signing_key: bool = False
) -> str:
    """Write the sheet of an installation as HTML; with `identities` the recovery key stands on it, and its QR code.

    Raise UsageError where there is no backup yet, or where the key is none that opens the newest one.
    """
    records = own_records(config, now=now)
    # By hand one archive is put in place; what builds on it takes PostgreSQL's own program, or this one.
    newest = next((each for each in records if not each.manifest.is_incremental), None)
    if newest is None:
        raise UsageError(
            f"there is no backup of {config.id} yet, of which a sheet could tell", hint="mailarchiver-backup backup hot"
        )
    known = read_identity(config.id, config.directory)
    manifest = newest.manifest
    remotes = tuple(each.remote for each in config.settings.copies)
    facts = SheetFacts(manifest, config.directory, config.repository, known.public, known.key_file, remotes)
    copies = "; ".join(f"{each.name}: {each.remote} (rclone)" for each in config.settings.copies)
    signing = ""
    if with_signing_key:
        if not known.public:
            raise UsageError("there is no signing key yet", hint="the first backup makes it")
        signing = read_outside(known.key_file, SIGNING_KEY)[0][:KEY_FILE_LIMIT_BYTES].decode().strip()
    rows = [*_rows(facts, copies), *_newer_links(records, newest)]
    return recovery_page(facts, rows, at=now, secret=_secret(facts, identities), signing=signing)


def _newer_links(records: Sequence[Record], whole: Record) -> list[tuple[str, str]]:
    """Tell of the incremental backups that are newer than the one that the sheet brings back by hand."""
    newer = [each for each in records if each.manifest.created_at > whole.manifest.created_at]
    if not newer:
        return []
    last = newer[0].manifest
    text = (
        f"{len(newer)} incremental backups, the newest {newer[0].file}, {last.created_at:%Y-%m-%d %H:%M} UTC: the commands of this program"
        " restore it with all that it builds on; by hand `pg_combinebackup` puts the unpacked postgres-data of each together, the oldest first"
    )
    return [("Newer than that", text)]


def _secret(facts: SheetFacts, identities: Sequence[str]) -> str:
    """Choose the identity that opens the newest backup; "" where none was given."""
    if not identities:
        return ""
    encryption = facts.manifest.encryption
    if encryption is None:
        raise UsageError(f"{facts.archive} is not encrypted: it needs no key", hint="leave --identity away")
    for each in identities:
        is_age = each.upper().startswith("AGE-SECRET-KEY-")
        if is_age and str(pyrage.x25519.Identity.from_str(each).to_public()) in encryption.recipients:
            return each
    told = ", ".join(short_recipient(each) for each in encryption.recipients)
    raise UsageError(
        f"no AGE-SECRET-KEY of that file belongs to a recipient of the newest backup ({told})",
        hint="an SSH or a plugin's key cannot stand on paper; leave --identity away and say on the sheet where it is",
    )


def _rows(facts: SheetFacts, copies: str = "") -> list[tuple[str, str]]:
    manifest = facts.manifest
    images = [f"{each.service}: {each.image}" for each in manifest.images]
    sealed = ", encrypted with age" if facts.is_encrypted else ", not encrypted"
    return [
        ("Machine and directory", f"{socket.gethostname()}, {facts.directory} (compose project {manifest.project})"),
        ("Backups", f"{facts.repository} on {socket.gethostname()}"),
        ("Copies elsewhere", copies or "____________________________________________"),
        ("Newest backup", f"{facts.archive}, {manifest.created_at:%Y-%m-%d %H:%M} UTC"),
        ("Kind", f"{manifest.method}, {FORMATS[manifest.format]}{sealed}"),
        (
            "Database",
            f"{manifest.database.name}, owner {manifest.database.owner}, PostgreSQL {manifest.database.server_version}",
        ),
        ("Images", "; ".join(images) or "unknown"),
    ]
