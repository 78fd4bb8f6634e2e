"""Makers of the values that unit tests speak about: each gives something ordinary, of which a test changes what it is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.core.archive.manifest import DatabaseFacts, ImageFacts, Manifest, Record, Verdict, Verification
from tasks.core.stack.installation import Database, Installation, Mount, Service, ServiceState

NOW = datetime(2026, 6, 30, 12, 0, tzinfo=UTC)


def database_facts(**changes: Any) -> DatabaseFacts:
    """Make the facts of a database of PostgreSQL 17 on glibc."""
    ordinary: dict[str, Any] = {
        "name": "MailArchiver", "owner": "mailuser", "encoding": "UTF8", "collation": "en_US.utf8", "character_type": "en_US.utf8",
        "collation_version": "2.36", "server_version": "17.6", "server_major": 17, "system_identifier": "7", "libc": "gnu",
        "architecture": "x86_64", "migration_head": "20260101000000_Newest", "roles": ["mailuser"],
    }  # fmt: skip
    return DatabaseFacts.model_validate(ordinary | changes)


def manifest(hours: float = 1, *, database: DatabaseFacts | None = None, **changes: Any) -> Manifest:
    """Make the manifest of a backup of so many hours before NOW."""
    at = NOW - timedelta(hours=hours)
    ordinary: dict[str, Any] = {
        "version": 1, "name": f"mailarchiver-backup-{at:%Y%m%d-%H%M%S}", "method": "hot", "format": "guide", "installation": "main",
        "project": "mail", "created_at": at, "database": database or database_facts(), "members": [],
        "images": [
            ImageFacts(service="app", image="s1t5/mailarchiver:2608.1", image_id="sha256:a", digest="sha256:app"),
            ImageFacts(service="postgres", image="postgres:17", image_id="sha256:p", digest="sha256:postgres"),
        ],
    }  # fmt: skip
    return Manifest.model_validate(ordinary | changes)


def record(
    hours: float = 1, *, verdict: Verdict | None = None, verified_sha: str = "a", size: int = 100, **changes: Any
) -> Record:
    """Make the record of a backup of so many hours before NOW, verified an hour later where a verdict is given."""
    about = manifest(hours, **changes)
    verification = verdict and Verification(
        verdict=verdict, at=about.created_at + timedelta(hours=1), archive_sha256=verified_sha, rows=1, tables=1, attachments=1,
        differences=["a row"] if verdict == "different" else [], restore_seconds=42, seconds=50,
    )  # fmt: skip
    return Record(
        file=f"{about.name}.tar.gz", bytes=size, sha256="a", seconds=1, manifest=about, verification=verification
    )


def service(name: str, *, state: ServiceState = "running", **changes: Any) -> Service:
    """Make a service with a container."""
    ordinary: dict[str, Any] = {
        "container_id": f"id-of-{name}", "container_name": f"mail-{name}-1", "image": f"{name}:1", "image_id": "sha256:1",
        "image_digest": f"sha256:{name}", "restart_policy": "always", "environment": {}, "mounts": (), "addresses": (),
    }  # fmt: skip
    return Service(name=name, state=state, **(ordinary | changes))


def installation(**changes: Any) -> Installation:
    """Make an installation with nothing wrong."""
    data = Mount("bind", "/srv/mail/postgres-data", "/var/lib/postgresql/data", Path("/srv/mail/postgres-data"))
    keys = Mount("bind", "/srv/mail/keys", "/app/DataProtection-Keys", Path("/srv/mail/keys"))
    ordinary: dict[str, Any] = {
        "id": "main", "directory": Path("/srv/mail"), "project": "mail", "compose_files": (Path("/srv/mail/docker-compose.yml"),),
        "application": service("app"), "postgres": service("postgres"), "services": (), "pgdata": data.target,
        "database": Database("MailArchiver", "mailuser", "superuser's", "mailuser", "user's"), "data_mount": data, "keys_mount": keys,
        "config_files": (),
    }  # fmt: skip
    return Installation(**(ordinary | changes))
