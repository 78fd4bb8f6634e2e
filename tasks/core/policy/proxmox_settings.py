"""The section `proxmox`: which guests are backed up how, and where their backups are looked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tasks.core.policy.guest_names import DATASTORE, GUEST_POOL, LARGEST_GUEST, NAMESPACE, NODE, STORAGE
from tasks.core.policy.setting_types import AbsolutePath, Count, Hours, Section

NOTES_LIMIT = 1024

Mode = Literal["stop", "suspend", "snapshot"]
Compression = Literal["zstd", "gzip", "lzo", "none"]

# The guide's own reasons for the mode `stop`, told where another one is chosen and where a backup begins.
STOP_REASONS = (
    "all database transactions are completed and on the disk before the backup is taken",
    "nothing is copied while the database writes, which can damage the copy",
    "the file system is at rest: no write is half done",
)


def _host(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(
        r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]{2,39}", value
    ):
        raise ValueError("is not a host: a name or an address, without https:// and without a port")
    return value


def _fingerprint(value: object) -> object:
    """Read a certificate's SHA-256 as Proxmox shows it: 64 hexadecimal digits, with colons or without."""
    digits = value.replace(":", "").lower() if isinstance(value, str) else ""
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError("is not the SHA-256 of a certificate, as Proxmox shows it: 32 pairs of hexadecimal digits")
    return digits


Host = Annotated[str, BeforeValidator(_host)]
Fingerprint = Annotated[str, BeforeValidator(_fingerprint)]
Port = Annotated[int, Field(ge=1, le=65_535, strict=True)]
GuestId = Annotated[int, Field(ge=100, le=LARGEST_GUEST, strict=True)]


class ProxmoxServer(Section):
    """How a server of Proxmox's is reached: always by TLS, whose certificate is checked by a CA or is the one that is named."""

    host: Host
    token_file: AbsolutePath
    fingerprint: Fingerprint | None = None
    ca_file: AbsolutePath | None = None

    @model_validator(mode="after")
    def _one_proof(self) -> ProxmoxServer:
        if self.fingerprint is not None and self.ca_file is not None:
            raise ValueError("has both fingerprint and ca_file; give the one by which its certificate is known")
        return self


class ProxmoxRetention(Section):
    """Proxmox's own `prune-backups`: what is kept of each guest's backups, the union of these rules."""

    keep_last: Count = 0
    keep_hourly: Count = 0
    keep_daily: Count = 0
    keep_weekly: Count = 0
    keep_monthly: Count = 0
    keep_yearly: Count = 0

    @model_validator(mode="after")
    def _keeps_something(self) -> ProxmoxRetention:
        if not any(self.rules.values()):
            raise ValueError("keeps nothing: give at least one rule, or leave it out for the storage's own")
        return self

    @property
    def rules(self) -> dict[str, int]:
        """Give the rules by Proxmox's names, in the order in which it applies them."""
        return {
            "keep-last": self.keep_last,
            "keep-hourly": self.keep_hourly,
            "keep-daily": self.keep_daily,
            "keep-weekly": self.keep_weekly,
            "keep-monthly": self.keep_monthly,
            "keep-yearly": self.keep_yearly,
        }


class BackupServer(ProxmoxServer):
    """A Proxmox Backup Server whose snapshots of the guests are looked at; nothing is changed there."""

    port: Port = 8007
    datastore: Annotated[str, Field(pattern=f"^{DATASTORE}$")]
    namespace: Annotated[str, Field(pattern=f"^{NAMESPACE}$")] | None = None
    medium: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,31}$")] = "backup-server"
    off_site: bool = False

    @property
    def place(self) -> str:
        """Name the place where its backups are."""
        return f"{self.host}:{self.datastore}" + (f"/{self.namespace}" if self.namespace else "")


class NodeShell(Section):
    """How `pct exec` is reached on the nodes, by the system's ssh: a container has no guest agent.

    `addresses` says where each node is; left out, every guest's node is the Proxmox of the section itself. The nodes' keys are
    those of `known_hosts_file` and no others.
    """

    user: Annotated[str, Field(pattern="^[a-z_][a-z0-9_-]{0,31}$")] = "root"
    port: Port = 22
    key_file: AbsolutePath
    known_hosts_file: AbsolutePath
    addresses: dict[Annotated[str, Field(pattern=f"^{NODE}$")], Host] = Field(default_factory=dict, max_length=64)


class GuestVerification(Section):
    """How a guest's newest backup is proven by restoring it beside the guest.

    `ids` are the first and the last id that may be taken; left out, Proxmox names the next free one. `limit_hours` is how long a
    restore may take, `start_minutes` how long the guest, its Docker, its database and the application each. `within_hours` is how long
    ago the last proof may be.
    """

    storage: Annotated[str, Field(pattern=f"^{STORAGE}$")]
    ids: tuple[GuestId, GuestId] | None = None
    pool: Annotated[str, Field(pattern=f"^{GUEST_POOL}$")] | None = None
    limit_hours: Hours = 6
    start_minutes: Annotated[float, Field(gt=0, le=24 * 60, allow_inf_nan=False)] = 15
    within_hours: Hours = 800
    ssh: NodeShell | None = None

    @field_validator("ids")
    @classmethod
    def _in_order(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"ends before it begins: {value[0]} to {value[1]}")
        return value

    @property
    def start_seconds(self) -> float:
        """Give how long each part of a restored guest may take to answer."""
        return self.start_minutes * 60


class Proxmox(ProxmoxServer):
    """The guests that carry this installation, and how they are backed up.

    `retention` left out: the storage's own rules hold. `limit_hours` is how long one guest's backup may take: then it is
    ended and the guest started. `within_hours` is how old a guest's newest backup may be, no matter who made it.
    """

    port: Port = 8006
    guests: Annotated[tuple[GuestId, ...], Field(min_length=1, max_length=50)]
    storage: Annotated[str, Field(pattern=f"^{STORAGE}$")]
    mode: Mode = "stop"
    compression: Compression = "zstd"
    notes: str = "{{guestname}}, by mailarchiver-backup"
    protected: Annotated[bool, Field(strict=True)] = False
    retention: ProxmoxRetention | None = None
    limit_hours: Hours = 12
    within_hours: Hours = 200
    medium: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,31}$")] = "proxmox"
    off_site: bool = False
    backup_servers: Annotated[tuple[BackupServer, ...], Field(max_length=10)] = ()
    verification: GuestVerification | None = None

    @model_validator(mode="after")
    def _ids_are_free(self) -> Proxmox:
        ids = self.verification.ids if self.verification is not None else None
        if ids is not None and (taken := [each for each in self.guests if ids[0] <= each <= ids[1]]):
            raise ValueError(
                f"has guest {taken[0]} of its own among verification.ids, where guests are restored and removed"
            )
        return self

    @field_validator("guests")
    @classmethod
    def _differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for each in value:
            if value.count(each) > 1:
                raise ValueError(f"names guest {each} twice")
        return value

    @field_validator("notes")
    @classmethod
    def _notes_fit(cls, value: str) -> str:
        if len(value) > NOTES_LIMIT or not value.isprintable():
            raise ValueError(f"is not a template of one line of at most {NOTES_LIMIT} characters")
        return value

    @property
    def limit_seconds(self) -> float:
        """Give how long the backups of all guests may take, or their verifications, with what comes before and after each."""
        proof = self.verification
        proof_seconds = proof.limit_hours * 3600 * 2 + proof.start_seconds * 5 if proof is not None else 0.0
        return len(self.guests) * (max(self.limit_hours * 3600, proof_seconds) + 1800)

    @property
    def secret_files(self) -> tuple[Path, ...]:
        """List the files with tokens and keys."""
        shell = self.verification.ssh if self.verification is not None else None
        keys = (shell.key_file,) if shell is not None else ()
        return (self.token_file, *(each.token_file for each in self.backup_servers), *keys)
