"""The manifest inside every archive, and the record (sidecar) beside it.

The format is a promise to strangers and is written down in the README. `version` grows when an old reader would misunderstand
a new archive; unknown fields are ignored, so that additions need no new version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from tasks.core.errors import ArchiveDamaged

MANIFEST_VERSION = 1

Method = Literal["hot", "complete", "online"]
Format = Literal["guide", "fast"]
Verdict = Literal["verified", "different", "failed", "legacy"]
Sha256 = str


class Value(BaseModel):
    """A frozen value that reads and writes JSON; what a newer version added means nothing here, and is written again as it was read.

    It must stay, for signatures cover it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")


class Member(Value):
    """One regular file of an archive: its name below the top directory, its size, and the SHA-256 of its content."""

    name: str
    bytes: NonNegativeInt
    sha256: Sha256


class TableCensus(Value):
    """What a table holds: the row count and the order-independent digest of its rows (see `tasks/core/dump/census.py`)."""

    rows: NonNegativeInt
    digest: str


class Census(Value):
    """What "the same data" means: two databases with equal censuses hold the same content.

    Taken from the stream of `pg_dump` itself, so it is of exactly the dump's snapshot. `tables` are keyed by quoted,
    schema-qualified name with the column list; `sequences` give each sequence's `setval` arguments; `schema` maps each
    object of the dump (its kind and name) to the digest of its definition; `large_objects` counts and digests them.
    `inheriting` has another digest for tables that inherit, one that does not see the order of their columns.
    """

    tables: dict[str, TableCensus]
    sequences: dict[str, str]
    large_objects: TableCensus
    schema_objects: dict[str, str]
    inheriting: dict[str, str] = Field(default_factory=dict)


class Grant(Value):
    """One privilege on a database: who granted it to whom ("" for PUBLIC), and whether they may pass it on."""

    grantor: str
    grantee: str
    privilege: str
    grantable: bool = False


class DatabaseFacts(Value):
    """The database and server that a backup was taken from: what a restore compares before it touches anything.

    `settings` are its `ALTER DATABASE ... SET` lines by role ("" for all), as PostgreSQL keeps them. `grants` stand in PostgreSQL's order, None
    for its defaults; `privileges` say less of the same (`role privilege`) for older readers. `tablespaces` are those that it and its objects
    use beside the default one. `server_settings` are those of the server that objects may depend on. `invalid_indexes` were so at the source;
    None in manifests that did not look.
    """

    name: str
    owner: str
    encoding: str
    collation: str
    character_type: str
    locale_provider: str = "libc"
    icu_locale: str | None = None
    icu_rules: str | None = None
    collation_version: str | None = None
    comment: str | None = None
    connection_limit: int = -1
    is_template: bool = False
    tablespace: str = "pg_default"
    security_labels: dict[str, str] = Field(default_factory=dict)
    privileges: list[str] | None = None
    grants: list[Grant] | None = None
    settings: dict[str, list[str]] = Field(default_factory=dict)
    roles: list[str] = Field(default_factory=list)
    size_bytes: NonNegativeInt = 0
    server_version: str
    server_major: int
    system_identifier: str = ""
    libc: str = ""
    architecture: str = ""
    migration_head: str | None = None
    extensions: dict[str, str] = Field(default_factory=dict)
    tablespaces: list[str] = Field(default_factory=list)
    server_settings: dict[str, str] = Field(default_factory=dict)
    invalid_indexes: list[str] | None = None


class ImageFacts(Value):
    """Which image a service ran: the name it was asked for by, its id, and the registry's digest where one is known."""

    service: str
    image: str
    image_id: str
    digest: str | None = None


class Origin(Value):
    """Who made a backup, and after which: the installation's public key, a number that only grows, the digest of the manifest before, and the
    signature over the whole manifest but this signature itself (`tasks/core/archive/authenticity.py`)."""

    key: str
    sequence: NonNegativeInt
    previous: str = ""
    signature: str = ""


class RecordSignature(Value):
    """The signature over a whole record but itself, and by which key."""

    key: str
    signature: str


class Manifest(Value):
    """What an archive says about itself. `created_at` is the moment of the snapshot (hot), or of the copy.

    A dump that we could not read to its end has no census, and `no_census` says why: it is proven as a legacy archive is. `warnings` say what
    the archive lacks although the backup succeeded: the data-protection keys, for one.
    """

    version: int
    name: str
    method: Method
    format: Format
    installation: str
    project: str
    created_at: AwareDatetime
    downtime_seconds: float = 0.0
    program_version: str = ""
    database: DatabaseFacts
    images: list[ImageFacts]
    superuser: str = ""
    pgdata: str = ""
    data_target: str = ""
    keys_target: str = ""
    compose_files: list[str] = Field(default_factory=list)
    members: list[Member]
    census: Census | None = None
    no_census: str = ""
    warnings: list[str] = Field(default_factory=list)
    origin: Origin | None = None


class Verification(Value):
    """The verdict of a restore on staging, bound to the archive's SHA-256 at that time.

    `compared` names what was compared (`tasks/core/report/comparisons.py`); None in records that do not say.
    `notes` tell what else is worth knowing: that our loader failed and PostgreSQL's own program loaded the dump, that there was no census.
    """

    verdict: Verdict
    at: AwareDatetime
    archive_sha256: Sha256
    rows: NonNegativeInt
    tables: NonNegativeInt
    attachments: NonNegativeInt
    differences: list[str]
    restore_seconds: float
    seconds: float
    data_age_seconds: float | None = None
    notes: list[str] = Field(default_factory=list)
    compared: list[str] | None = None


class RestoredCensus(Value):
    """The census of a whole copy, taken when it was first restored on staging, and the bytes (SHA-256 of the archive) it was taken from."""

    at: AwareDatetime
    archive_sha256: Sha256
    census: Census


class Record(Value):
    """The sidecar beside an archive: the cheap way to list, and the place of the verdict.

    `seconds` is how long the backup took. A verification counts only while its `archive_sha256` equals `sha256`. `content_accepted`: it holds
    much less than the backup before it, and somebody has said that this is right. `restored_census` is what the first verification of a whole copy
    found in it; later ones compare with it. `dated` is the moment that somebody has said the backup is of, where a clock was wrong; one that was
    `dismissed` for its date counts for nothing. `signature` covers all of these.
    """

    file: str
    bytes: NonNegativeInt
    sha256: Sha256
    seconds: float
    manifest: Manifest
    verification: Verification | None = None
    content_accepted: bool = False
    restored_census: RestoredCensus | None = None
    dated: AwareDatetime | None = None
    dismissed: bool = False
    signature: RecordSignature | None = None

    @property
    def verified(self) -> bool:
        """Tell whether these very bytes were restored and found equal."""
        found = self.verification
        return found is not None and found.verdict == "verified" and found.archive_sha256 == self.sha256


def parse_manifest(text: str | bytes, *, source: str) -> Manifest:
    """Read a manifest written by this or an older version.

    Raise ArchiveDamaged where it is not one, or was written by a newer version than this program understands.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ArchiveDamaged(f"{source} is not a manifest: {_first_problem(error)}") from error
    if manifest.version > MANIFEST_VERSION:
        raise ArchiveDamaged(
            f"{source} has manifest version {manifest.version}; this program reads up to {MANIFEST_VERSION}",
            hint="update mailarchiver-backup",
        )
    return manifest


def parse_record(text: str | bytes, *, source: str) -> Record:
    """Read a sidecar; raise ArchiveDamaged where it is not one."""
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        raise ArchiveDamaged(f"{source} is not a record of a backup: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def is_older_than(created_at: datetime, now: datetime, *, hours: float) -> bool:
    """Tell whether a moment lies more than so many hours before `now`."""
    return (now - created_at).total_seconds() > hours * 3600
