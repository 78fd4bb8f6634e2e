"""What a staging stack is made of: a compose model without ways out."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.adapters.archive.reader import CheckedArchive
from tasks.adapters.engine import resources
from tasks.adapters.engine.labels import STAGING_LABEL
from tasks.adapters.host.files import make_directory
from tasks.core.archive.manifest import ImageFacts
from tasks.core.errors import Refused
from tasks.core.policy.limits import StagingLimits
from tasks.core.stack.harmless_settings import staging_environment
from tasks.core.stack.installation import Installation, Service
from tasks.core.stack.server_settings import staging_settings
from tasks.verification.staging_configuration import configuration_mounts

PGDATA = "pgdata"
UTF8 = "UTF8"
# Those besides UTF-8 that a server may have; what an archive says becomes part of a command.
SERVER_ENCODINGS = frozenset({
    "SQL_ASCII", "EUC_CN", "EUC_JIS_2004", "EUC_JP", "EUC_KR", "EUC_TW", "ISO_8859_5", "ISO_8859_6", "ISO_8859_7", "ISO_8859_8", "KOI8R",
    "KOI8U", "MULE_INTERNAL", "WIN866", "WIN874", *(f"LATIN{number}" for number in range(1, 11)),
    *(f"WIN{number}" for number in range(1250, 1259)),
})  # fmt: skip
# Nobody's data depend on this server surviving a power cut, and it lives for minutes.
FAST_AND_LOOSE = (
    "fsync=off", "full_page_writes=off", "synchronous_commit=off", "wal_level=minimal", "max_wal_senders=0", "archive_mode=off",
    "max_wal_size=4GB", "checkpoint_timeout=30min", "autovacuum=off",
)  # fmt: skip
# Its log, which Docker keeps, would show the rows that an error is about; what goes wrong is told to us.
SILENT = (
    "log_error_verbosity=terse",
    "log_min_error_statement=panic",
    "log_statement=none",
    "log_min_duration_statement=-1",
)


def staging_model(
    production: Installation,
    archive: CheckedArchive,
    project: str,
    directory: Path,
    limits: StagingLimits,
    *,
    settings: Mapping[str, str],
    postgres_image: str = "",
) -> dict[str, Any]:
    """Build the compose model of a staging stack and put what it mounts into `directory`.

    Of production's secrets it has none: its database's password is its own. `settings` are those of production's server
    that objects may depend on.
    """
    password = secrets.token_urlsafe(24)
    superuser = archive.manifest.superuser if archive.manifest else production.database.superuser
    database = archive.manifest.database.name if archive.manifest else production.database.name
    connection = f'Host={production.postgres.name};Port=5432;Database={_quoted(database)};Username={_quoted(superuser)};Password="{password}"'
    common: dict[str, Any] = {
        "restart": "no",
        "networks": ["staging"],
        "dns": ["127.0.0.1"],  # Docker would otherwise ask the host's name servers, even from an internal network
        "labels": {STAGING_LABEL: production.id},
        "security_opt": ["no-new-privileges:true"],
    }
    if limits.memory_bytes:
        common["mem_limit"] = limits.memory_bytes
    keys = directory / "keys"
    make_directory(keys)
    postgres = {
        **common,
        "image": postgres_image or _image(archive, production.postgres),
        "environment": {
            "POSTGRES_USER": superuser,
            "POSTGRES_PASSWORD": password,
            "POSTGRES_DB": database,
            "PGDATA": production.pgdata,
            **_initdb_arguments(archive),
        },
        "shm_size": "256m",
    }
    if archive.kind == "physical":
        data = directory / "data"
        make_directory(data / PGDATA)
        postgres["volumes"] = [{"type": "bind", "source": str(data / PGDATA), "target": production.pgdata}]
        postgres["command"] = staging_settings(settings, SILENT)
    else:
        postgres["command"] = staging_settings(settings, (*FAST_AND_LOOSE, *SILENT))
        postgres["volumes"] = [f"data:{production.data_mount.target}"]
    application = {
        **common,
        "image": _image(archive, production.application),
        "environment": staging_environment(production.application.environment, connection),
        "volumes": [
            {
                "type": "bind",
                "source": str(keys),
                "target": production.keys_mount.target if production.keys_mount else "/app/DataProtection-Keys",
            },
            *configuration_mounts(production, archive, directory, connection=connection),
        ],
        "depends_on": [production.postgres.name],
    }
    model: dict[str, Any] = {
        "name": project,
        "services": {production.postgres.name: postgres, production.application.name: application},
        "networks": {"staging": {"internal": True, "labels": {STAGING_LABEL: production.id}}},
    }
    if archive.kind != "physical":
        model["volumes"] = {"data": {"labels": {STAGING_LABEL: production.id}}}
    escaped: dict[str, Any] = _without_interpolation(model)
    return escaped


def _initdb_arguments(archive: CheckedArchive) -> dict[str, str]:
    """Say how staging's cluster is made: without waiting for the disk, since it is taken away again.

    It is in the encoding of the database: names of roles, which are the cluster's, are the bytes that the database reads.
    """
    encoding = archive.manifest.database.encoding if archive.manifest else UTF8
    words = ["--no-sync", *([f"--encoding={encoding}", "--locale=C"] if encoding in SERVER_ENCODINGS else [])]
    return {"POSTGRES_INITDB_ARGS": " ".join(words)}


def _image(archive: CheckedArchive, service: Service) -> str:
    """Choose the image that the backup was taken with, by id, digest or name; for a legacy archive, the one in use."""
    recorded = archive.manifest.images if archive.manifest else []
    facts = next((image for image in recorded if image.service == service.name), None) or ImageFacts(
        service=service.name, image=service.image, image_id=service.image_id, digest=service.image_digest
    )
    for reference in (facts.image_id, facts.digest, facts.image):
        if reference and resources.image_exists(reference):
            return reference
    raise Refused(
        f"the image {facts.image} ({facts.digest or facts.image_id}) that the backup was taken with is not on this machine",
        hint=f"docker pull {facts.digest or facts.image}",
    )


def _quoted(value: str) -> str:
    """Quote a value of an ADO.NET connection string."""
    return '"' + value.replace('"', '""') + '"'


def _without_interpolation(value: Any) -> Any:
    """Double every dollar sign, so that Compose takes names and passwords as they are."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _without_interpolation(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_interpolation(inner) for inner in value]
    return value
