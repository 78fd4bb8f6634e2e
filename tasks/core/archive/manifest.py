"""The manifest inside every archive, and the record (sidecar) beside it.

The format is a promise to strangers and is written down in the README. `version` grows when an old reader would misunderstand
a new archive; unknown fields are ignored, so that additions need no new version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from tasks.core.archive.bounded_json import TEXT_LIMIT_BYTES, read_object
from tasks.core.archive.system_contents import GuestFacts, HostContents, SystemMethod
from tasks.core.archive.values import (
    Age,
    Count,
    Moment,
    Name,
    Number,
    Seconds,
    Sentences,
    Sha256,
    Strings,
    Texts,
    Value,
    values_of,
)  # fmt: skip
from tasks.core.errors import ArchiveDamaged, Refused

MANIFEST_VERSION = 1
# An archive that holds only what has changed: anyone who takes it for a whole one would restore nonsense.
CHAINED_VERSION = 2
NEWEST_VERSION = CHAINED_VERSION
# A century of nights, hourly for four years.
LINKS_LIMIT = 36_500

Method = Literal["hot", "complete", "online"]
Format = Literal["guide", "fast"]
# "not verifiable" (an encrypted archive whose key is not here) is told, and never recorded.
Verdict = Literal["verified", "different", "failed", "legacy", "not verifiable"]
OpenedWith = Literal["", "verification key", "recovery key", "identity"]


class Member(Value):
    """One regular file of an archive: its name below the top directory, its size, and the SHA-256 of its content."""

    name: Name
    bytes: Count
    sha256: Sha256


class Bulk(Value):
    """The files of an archive that its manifest does not list one by one: how many, of how many bytes, and the digest of their list.

    An incremental archive has hundreds of files without a change in them; thousands of its kind are read each night.
    """

    files: Count
    bytes: Count
    sha256: Sha256


class TableCensus(Value):
    """What a table holds: the row count and the order-independent digest of its rows (see `tasks/core/dump/census.py`)."""

    rows: Count
    digest: str


class Census(Value):
    """What "the same data" means: two databases with equal censuses hold the same content.

    Taken from the stream of `pg_dump` itself, so it is of exactly the dump's snapshot. `tables` are keyed by quoted,
    schema-qualified name with the column list; `sequences` give each sequence's `setval` arguments; `schema` maps each
    object of the dump (its kind and name) to the digest of its definition; `large_objects` counts and digests them.
    `inheriting` has another digest for tables that inherit, one that does not see the order of their columns.
    """

    tables: Annotated[dict[str, TableCensus], values_of(dict | TableCensus, 50_000)]
    sequences: Texts
    large_objects: TableCensus
    schema_objects: Texts
    inheriting: Texts = Field(default_factory=dict)


class Grant(Value):
    """One privilege on a database: who granted it to whom ("" for PUBLIC), and whether they may pass it on."""

    grantor: str
    grantee: str
    privilege: str
    grantable: bool = False


class DatabaseFacts(Value):
    """The database and server that a backup was taken from: what a restore compares before it touches anything.

    `settings` are its `ALTER DATABASE ... SET` lines by role ("" for all), as PostgreSQL keeps them. `grants` stand in
    PostgreSQL's order, None for its defaults; `privileges` say less of the same (`role privilege`) for older readers.
    `tablespaces` are those that it and its objects use beside the default one. `server_settings` are those of the
    server that objects may depend on. `invalid_indexes` were so at the source; None in manifests that did not look.
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
    connection_limit: Number = -1
    is_template: bool = False
    tablespace: str = "pg_default"
    security_labels: Texts = Field(default_factory=dict)
    privileges: Strings | None = None
    grants: Annotated[list[Grant], Field(fail_fast=True)] | None = None
    settings: Annotated[dict[str, Strings], values_of(list, 10_000)] = Field(default_factory=dict)
    roles: Strings = Field(default_factory=list)
    size_bytes: Count = 0
    server_version: str
    server_major: Number
    system_identifier: str = ""
    libc: str = ""
    architecture: str = ""
    migration_head: str | None = None
    extensions: Texts = Field(default_factory=dict)
    tablespaces: Strings = Field(default_factory=list)
    server_settings: Texts = Field(default_factory=dict)
    invalid_indexes: Strings | None = None


NO_DATABASE = DatabaseFacts(
    name="", owner="", encoding="", collation="", character_type="", server_version="", server_major=0
)
"""What stands in the manifest of a backup of the system around: it is of no database."""


class ImageFacts(Value):
    """Which image a service ran: the name it was asked for by, its id, and the registry's digest where one is known."""

    service: str
    image: str
    image_id: str
    digest: str | None = None


class Origin(Value):
    """Who made a backup, and after which (`tasks/core/archive/authenticity.py`).

    `key` is the installation's public key, `sequence` only grows, `previous` is the digest of the manifest before;
    `signature` covers the whole manifest but itself.
    """

    key: str
    sequence: Count
    previous: str = ""
    signature: str = ""


class RecordSignature(Value):
    """The signature over a whole record but itself, and by which key."""

    key: str
    signature: str


class Encryption(Value):
    """To which public keys (age recipients) an archive is encrypted; `verification` is the one whose private half is kept for one verification."""

    recipients: Strings
    verification: str = ""


class Link(Value):
    """An archive that another one needs: its backup's name, its file, and the SHA-256 of that file."""

    name: Name
    file: Name
    sha256: Sha256


class Manifest(Value):
    """What an archive says about itself. `created_at` is the moment of the snapshot (hot), or of the copy.

    A dump that we could not read to its end has no census, and `no_census` says why: it is proven as a legacy archive
    is. `warnings` say what the archive lacks although the backup succeeded: the data-protection keys, for one. An
    incremental one names its `parents`, the full one first, and only together they are a backup. `history` is the token
    that the server got when a base backup had ended: a server that has it went on from there. `why_full` says why one
    that was to be incremental is not; `made_of` names the chain that a full one was put together from.
    `host` says what a backup of the host around holds.
    """

    version: Number
    name: Name
    method: Method | SystemMethod
    format: Format
    installation: Name
    project: Name
    created_at: Moment
    downtime_seconds: Seconds = 0.0
    program_version: str = ""
    database: DatabaseFacts
    images: Annotated[list[ImageFacts], Field(fail_fast=True)]
    superuser: str = ""
    pgdata: str = ""
    data_target: str = ""
    keys_target: str = ""
    compose_files: Strings = Field(default_factory=list)
    members: Annotated[list[Member], Field(fail_fast=True)]
    census: Census | None = None
    no_census: str = ""
    warnings: Sentences = Field(default_factory=list)
    encryption: Encryption | None = None
    bulk: Bulk | None = None
    guest: GuestFacts | None = None
    parents: Annotated[list[Link], Field(fail_fast=True, max_length=LINKS_LIMIT)] = Field(default_factory=list)
    history: Annotated[str, Field(pattern="^([0-9a-f]{16})?$")] = ""
    why_full: Annotated[str, Field(max_length=4096)] = ""
    made_of: Annotated[list[Name], Field(fail_fast=True, max_length=LINKS_LIMIT)] = Field(default_factory=list)
    host: HostContents | None = None
    origin: Origin | None = None

    @model_validator(mode="after")
    def _host_is_host(self) -> Manifest:
        if (self.method == "host") != (self.host is not None):
            raise ValueError("the method `host` and what a host's backup holds go together")
        return self

    @property
    def is_incremental(self) -> bool:
        """Tell whether it holds only what changed since another one."""
        return bool(self.parents)

    @property
    def is_system(self) -> bool:
        """Tell whether it is of the system around the application: no backup of the mail database, and no proof of one."""
        return self.method in get_args(SystemMethod)

    @property
    def subject(self) -> str:
        """Name what it is a backup of ("lxc mail"); "" for the mail database."""
        return f"{self.method} {self.guest.name if self.guest else ''}".strip() if self.is_system else ""


class Verification(Value):
    """The verdict of a restore on staging, bound to the archive's SHA-256 at that time.

    `compared` names what was compared (`tasks/core/report/comparisons.py`); None in records that do not say.
    `notes` tell what else is worth knowing: that our loader failed and PostgreSQL's own program loaded the dump, that there was no census.
    `opened_with` names the key that opened an encrypted archive: the one made for this verification, the recovery key, or another.
    """

    verdict: Verdict
    at: Moment
    archive_sha256: Sha256
    rows: Count
    tables: Count
    attachments: Count
    differences: Sentences
    restore_seconds: Seconds
    seconds: Seconds
    data_age_seconds: Age | None = None
    notes: Sentences = Field(default_factory=list)
    compared: Strings | None = None
    opened_with: OpenedWith = ""


class RestoredCensus(Value):
    """The census of a whole copy, taken when it was first restored on staging, and the bytes (SHA-256 of the archive) it was taken from."""

    at: Moment
    archive_sha256: Sha256
    census: Census


class Record(Value):
    """The sidecar beside an archive: the cheap way to list, and the place of the verdict.

    `seconds` is how long the backup took. A verification counts only while its `archive_sha256` equals `sha256`.
    `content_accepted`: it holds much less than the backup before it, and somebody has said that this is right.
    `restored_census` is what the first verification of a whole copy found in it; later ones compare with it. `dated` is
    the moment that somebody has said the backup is of, where a clock was wrong; one that was `dismissed` for its date
    counts for nothing. `revision` counts how often it was signed anew. `signature` covers all of these.
    """

    file: Name
    bytes: Count
    sha256: Sha256
    seconds: Seconds
    manifest: Manifest
    verification: Verification | None = None
    content_accepted: bool = False
    restored_census: RestoredCensus | None = None
    dated: Moment | None = None
    dismissed: bool = False
    revision: Count = 0
    signature: RecordSignature | None = None

    @property
    def verified(self) -> bool:
        """Tell whether these very bytes were restored and found equal."""
        found = self.verification
        return found is not None and found.verdict == "verified" and found.archive_sha256 == self.sha256

    @property
    def refuted(self) -> bool:
        """Tell whether a verification found it wrong, or not to be restored."""
        return self.verification is not None and self.verification.verdict in ("different", "failed")


NOT_OURS_HINT = "it was altered or damaged: take another backup, `mailarchiver-backup list` shows them"


def parse_manifest(text: str | bytes, *, source: str) -> Manifest:
    """Read a manifest written by this or an older version.

    Raise ArchiveDamaged where it is not one, or was written by a newer version than this program understands.
    """
    try:
        found = _object(text)
        # Asked first: what a newer version means by its fields, this program cannot judge.
        version = found.get("version")
        if isinstance(version, int) and version > NEWEST_VERSION:
            raise ArchiveDamaged(
                f"{source} has manifest version {version}; this program reads up to {NEWEST_VERSION}",
                hint="update mailarchiver-backup",
            )
        return Manifest.model_validate(found)
    except ValueError as error:
        raise ArchiveDamaged(f"{source} is not a manifest: {_first_problem(error)}", hint=NOT_OURS_HINT) from error


def parse_record(text: str | bytes, *, source: str) -> Record:
    """Read a sidecar; raise ArchiveDamaged where it is not one."""
    try:
        return Record.model_validate(_object(text))
    except ValueError as error:
        raise ArchiveDamaged(
            f"{source} is not a record of a backup: {_first_problem(error)}", hint=NOT_OURS_HINT
        ) from error


def written(value: Value) -> bytes:
    """Write a manifest or record, for people to read unless it is huge; raise Refused where no reader would take it."""
    text = value.model_dump_json(indent=1).encode() + b"\n"
    if len(text) > TEXT_LIMIT_BYTES // 2:
        text = value.model_dump_json().encode() + b"\n"
    if len(text) > TEXT_LIMIT_BYTES:
        raise Refused(
            f"what is to be noted of this backup has {len(text):,} bytes, more than {TEXT_LIMIT_BYTES:,}",
            hint="are there hundreds of thousands of files, or tables, that are no part of Mail Archiver?",
        )
    return text


def _object(text: str | bytes) -> dict[str, Any]:
    """Give what a text holds, within bounds; raise ValueError, in words."""
    if len(text) > TEXT_LIMIT_BYTES:
        raise ValueError(f"it has {len(text):,} bytes, more than {TEXT_LIMIT_BYTES:,}")
    return read_object(text)


def _first_problem(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def is_older_than(created_at: datetime, now: datetime, *, hours: float) -> bool:
    """Tell whether a moment lies more than so many hours before `now`."""
    return (now - created_at).total_seconds() > hours * 3600
