"""The operator's settings: which installations there are, and what is wanted for each.

Everything is checked at once, and every problem is told in words with its place. An installation's own section (say,
`retention`) replaces that of `defaults` as a whole: half a policy from here and half from there would surprise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from tasks.core.archive.manifest import Format, Method
from tasks.core.archive.recipients import RECIPIENTS_LIMIT, recipient_problem
from tasks.core.archive.signatures import public_key_problem
from tasks.core.policy.copy_places import is_directory, remote_problem
from tasks.core.policy.guest_settings import Lxc, Vm
from tasks.core.policy.host_settings import Host
from tasks.core.policy.plain_input import shown
from tasks.core.policy.proxmox_settings import Proxmox
from tasks.core.policy.schedule_settings import Incremental, Schedule
from tasks.core.policy.setting_types import (
    BYTES_LIMIT,
    COUNT_LIMIT,
    SECONDS_LIMIT,
    AbsolutePath,
    Bytes,
    Count,
    Days,
    Hours,
    Seconds,
    Section,
    parse_bytes,
)
from tasks.core.policy.settings_problems import places_problems, problems_in, refuse

PROJECT = r"[a-z0-9][a-z0-9_-]{0,99}"
INSTALLATION_ID = r"[a-z0-9][a-z0-9_-]{0,31}"


def _recipient(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("is not a recipient, but no text")
    if problem := recipient_problem(value):
        raise ValueError(problem)
    return value


def _remote(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("is not a place of rclone's, but no text")
    if problem := remote_problem(value):
        raise ValueError(problem)
    return value


def _public_key(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("is not a public key, but no text")
    if problem := public_key_problem(value):
        raise ValueError(problem)
    return value


# What kind of medium the repository itself is on, as the rules of `require` count.
LOCAL_MEDIUM = "disk"

Recipient = Annotated[str, BeforeValidator(_recipient)]
PublicKey = Annotated[str, BeforeValidator(_public_key)]


class Retention(Section):
    """Which backups are kept: the union of these rules, and never fewer than `minimum_verified` verified ones."""

    keep_days: Days = 0
    keep_last: Count = 0
    keep_daily: Count = 0
    keep_weekly: Count = 0
    keep_monthly: Count = 0
    minimum_verified: Annotated[int, Field(ge=1, le=COUNT_LIMIT, strict=True)] = 3
    shrink_limit_percent: Annotated[float, Field(gt=0, lt=100)] = 20

    @model_validator(mode="after")
    def _keeps_something(self) -> Retention:
        if not (self.keep_days or self.keep_last or self.keep_daily or self.keep_weekly or self.keep_monthly):
            raise ValueError(
                "keeps nothing: give at least one of keep_days, keep_last, keep_daily, keep_weekly, keep_monthly"
            )
        return self


class Encryption(Section):
    """To whom archives are encrypted: age recipients (`age1...`, `ssh-ed25519 ...`, a plugin's), here or in a file, one a line."""

    recipients: Annotated[tuple[Recipient, ...], Field(max_length=RECIPIENTS_LIMIT)] = ()
    recipients_file: AbsolutePath | None = None
    # How long the key for one verification may be kept, in memory alone; 0: none is made, and no archive is verifiable here.
    # None: a day; of incremental backups as long as a chain grows, for its newest link is proven with all that it builds on.
    verification_key_hours: Annotated[float, Field(ge=0, le=24 * 366, allow_inf_nan=False)] | None = None
    # The recovery key opens an archive at least so often (`verify --with-recovery-key`), or that is an alarm; 0: nobody asks.
    drill_within_days: Days = 365

    @model_validator(mode="after")
    def _has_a_recipient(self) -> Encryption:
        if not self.recipients and self.recipients_file is None:
            raise ValueError(
                "names nobody: give recipients, or recipients_file; leave the section out for plain archives"
            )
        return self


class VerificationPolicy(Section):
    """When a backup is restored on staging to prove it: after every backup, after each `every`-th, or on the schedule alone."""

    when: Literal["after_backup", "on_schedule", "never"] = "after_backup"
    every: Annotated[int, Field(ge=1, le=COUNT_LIMIT, strict=True)] = 1


class Alarms(Section):
    """When silence is an alarm: no backup, or no verified one, within so many hours; and how little free space is too little."""

    backup_within_hours: Hours = 30
    verified_within_hours: Hours = 200
    free_below_bytes: Bytes = 0
    repeat_hours: Hours = 20


class Staging(Section):
    """What a staging stack may take: memory of each container (None: no limit)."""

    memory_bytes: (
        Annotated[int, BeforeValidator(parse_bytes), Field(ge=64 * 2**20, le=BYTES_LIMIT, strict=True)] | None
    ) = None


class Timeouts(Section):
    """How long things may take.

    `lock_wait_seconds` is for a table's lock during a dump; `defer_seconds` is how long an automated backup waits for a `VACUUM FULL`
    or a migration to end before it begins; `approval_seconds` how long a restore in Prefect waits for somebody to approve it.
    """

    dump_seconds: Seconds = 24 * 3600
    lock_wait_seconds: Seconds = 120
    postgres_stop_seconds: Annotated[int, Field(gt=0, le=86_400, strict=True)] = 120
    application_start_seconds: Seconds = 300
    defer_seconds: Annotated[float, Field(ge=0, le=SECONDS_LIMIT, allow_inf_nan=False)] = 3600
    approval_seconds: Seconds = 3600


AlarmKind = Literal[
    "success",
    "failure",
    "verification",
    "shrink",
    "overdue",
    "space",
    "recovery",
    "repository",
    "keys",
    "authenticity",
    "clock",
    "copies",
    "require",
    "mail_at_risk",
    "proxmox",
    "host",
    "guests",
]
# Everything but good news.
PROBLEMS: tuple[AlarmKind, ...] = tuple(kind for kind in get_args(AlarmKind) if kind != "success")


# What `doctor` may find weak; the settings may accept any of it.
RiskKind = Literal[
    "mail_at_risk",
    "no_off_site_copy",
    "unlocked_target",
    "unencrypted",
    "key_beside_backups",
    "default_password",
    "readable_by_others",
    "prefect_without_tls",
]


class Notification(Section):
    """Whom to tell: a health check that expects a ping, or any address that Apprise knows. The address is a secret.

    A ping is sent at the start, the success and the failure of each automated backup, whatever `events` says.
    """

    kind: Literal["ping", "apprise"]
    url: SecretStr
    # Not called `on`: YAML reads that word as true.
    events: tuple[AlarmKind, ...] = PROBLEMS


class CopyTarget(Section):
    """A place away from the repository that backups are copied to with rclone.

    `bandwidth` is what it may take in a second (None: all there is). A large archive is sent in parts of `part_bytes`:
    that much is sent again at most where a connection is cut. With `lock_days` the target itself refuses to remove or
    change a copy (S3 object lock) until the retention there lets it go, and for so long at least. Each copy is read back and hashed every `read_back_days` (0: never).
    `within_hours` is how old the newest copy may be before that is an alarm.
    """

    name: Annotated[str, Field(pattern=f"^{INSTALLATION_ID}$")]
    remote: Annotated[str, BeforeValidator(_remote)]
    retention: Retention | None = None
    bandwidth: Annotated[int, BeforeValidator(parse_bytes), Field(ge=1024, le=BYTES_LIMIT, strict=True)] | None = None
    part_bytes: Annotated[int, BeforeValidator(parse_bytes), Field(ge=2**20, le=2**32, strict=True)] = 256 * 2**20
    lock_days: Days = 0
    read_back_days: Days = 30
    medium: Annotated[str, Field(pattern=f"^{INSTALLATION_ID}$")] | None = None
    off_site: bool = False
    within_hours: Hours = 50

    @property
    def kept_on(self) -> str:
        """Name the kind of medium: a plain directory is a disk as the repository is, unless the settings say otherwise."""
        return self.medium or (LOCAL_MEDIUM if is_directory(self.remote) else "remote")


class Require(Section):
    """What the newest backups must have, or an alarm is raised: the 3-2-1-1-0 rule is `{copies: 3, media: 2, off_site: 1, immutable: 1, verified: true}`.

    The repository's own copy counts as one, on the medium `disk`. Some backup of the last `within_hours` must keep the rule.
    """

    copies: Annotated[int, Field(ge=0, le=100, strict=True)] = 0
    media: Annotated[int, Field(ge=0, le=100, strict=True)] = 0
    off_site: Annotated[int, Field(ge=0, le=100, strict=True)] = 0
    immutable: Annotated[int, Field(ge=0, le=100, strict=True)] = 0
    verified: Annotated[bool, Field(strict=True)] = False
    within_hours: Hours = 50


class InstallationSettings(Section):
    """What is wanted for one installation."""

    directory: AbsolutePath
    repository: AbsolutePath
    project: Annotated[str, Field(pattern=f"^{PROJECT}$")] | None = None
    method: Method = "hot"
    format: Format = "guide"
    schedule: Schedule = Schedule()
    retention: Retention = Retention(keep_days=30)
    encryption: Encryption | None = None
    incremental: Incremental = Incremental()
    verification: VerificationPolicy = VerificationPolicy()
    minimum_free_bytes: Bytes = 0
    staging: Staging = Staging()
    timeouts: Timeouts = Timeouts()
    alarms: Alarms = Alarms()
    notifications: tuple[Notification, ...] = ()
    log_file: AbsolutePath | None = None
    metrics_directory: AbsolutePath | None = None
    # Public halves of other hosts' signing keys, whose backups of this installation count as its own.
    trusted_keys: Annotated[tuple[PublicKey, ...], Field(max_length=100)] = ()
    # rclone's own configuration file, with its passwords; nothing of it is ever shown.
    rclone_config: AbsolutePath = Path("/etc/mailarchiver-backup/rclone.conf")
    copies: Annotated[tuple[CopyTarget, ...], Field(max_length=20)] = ()
    require: Require = Require()
    # The system around: the guests of a Proxmox VE that carry the installation.
    proxmox: Proxmox | None = None
    # Where no Proxmox is: containers of LXC and virtual machines of libvirt on this host.
    lxc: Lxc | None = None
    vm: Vm | None = None
    # What of the machine around is backed up: volumes, projects, images, files.
    host: Host | None = None
    # Weaknesses that are known and accepted: `doctor` still names them, and neither it nor `watch` calls them wrong.
    accept_risks: tuple[RiskKind, ...] = ()

    @model_validator(mode="after")
    def _incremental_is_wanted(self) -> InstallationSettings:
        if self.schedule.incremental is not None and self.incremental.kind == "full":
            raise ValueError(
                'schedule.incremental wants incremental backups, and incremental.kind is "full": set it to auto or incremental'
            )
        if self.incremental.synthetic and self.encryption is not None:
            raise ValueError(
                "incremental.synthetic puts archives together, and encrypted ones cannot be read here: leave it out"
            )
        return self

    @field_validator("copies")
    @classmethod
    def _names_differ(cls, value: tuple[CopyTarget, ...]) -> tuple[CopyTarget, ...]:
        for what, found in (("name", [each.name for each in value]), ("remote", [each.remote for each in value])):
            for each in found:
                if found.count(each) > 1:
                    raise ValueError(f"has two targets of the {what} {each!r}")
        return value


class Settings(Section):
    """The whole file. Made by `parse_settings` only, which applies the defaults."""

    installations: Mapping[str, InstallationSettings]


def parse_settings(content: object, *, source: str, known_problems: tuple[str, ...] = ()) -> Settings:
    """Check the content of a settings file and give it as a value.

    Raise UsageError that tells every problem, the known ones (from reading the file) first.
    """
    problems = list(known_problems)
    if not isinstance(content, Mapping):
        refuse(source, [*problems, "the file: holds no mapping with the key `installations`"])
    problems += places_problems(content, ("installations", "defaults"), "")
    defaults, installations = _mapping(content, "defaults", problems), _mapping(content, "installations", problems)
    if not installations and "installations: is not a mapping" not in " ".join(problems):
        problems.append(
            "installations: there is none; give at least one, such as `main: {directory: ..., repository: ...}`"
        )

    read: dict[str, InstallationSettings] = {}
    for name, own in installations.items():
        place = (
            f"installations.{name}"
            if isinstance(name, str) and len(name) <= 40
            else f"installations.{shown(str(name))}"
        )
        if not isinstance(name, str) or not re.fullmatch(INSTALLATION_ID, name):
            problems.append(
                f"{place}: {shown(str(name))} is not an id: 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or digit"
            )
        if not isinstance(own, Mapping):
            problems.append(f"{place}: is not a mapping, but {shown(repr(own))}")
            continue
        try:
            read[str(name)] = InstallationSettings.model_validate({**defaults, **own})
        except ValidationError as error:
            problems += problems_in(error, InstallationSettings, place, from_defaults=set(defaults) - set(own))
    problems += _problems_between(read)
    if problems:
        refuse(source, problems)
    return Settings(installations=read)


def _mapping(content: Mapping[Any, Any], key: str, problems: list[str]) -> Mapping[Any, Any]:
    found = content.get(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        problems.append(f"{key}: is not a mapping, but {shown(repr(found))}")
        return {}
    return found


def _problems_between(read: Mapping[str, InstallationSettings]) -> list[str]:
    """Find what is wrong only when several entries are looked at together. Links are followed where disks are known."""
    problems = []
    owners: dict[Path, str] = {}
    for name, settings in read.items():
        if settings.directory in owners:
            problems.append(
                f"installations.{name}.directory: {settings.directory} is the directory of {owners[settings.directory]} too"
            )
        owners.setdefault(settings.directory, name)
    taken: dict[str, str] = {}
    for name, settings in read.items():
        for other, owner in owners.items():
            data = [other / "postgres-data", other / "data-protection-keys"]
            if settings.repository == other or any(settings.repository.is_relative_to(place) for place in data):
                problems.append(
                    f"installations.{name}.repository: {settings.repository} lies in the data of {owner} ({other}); what is "
                    "backed up must not hold its backups"
                )
        for number, target in enumerate(settings.copies):
            if (owner := taken.setdefault(target.remote.rstrip("/"), name)) != name:
                problems.append(
                    f"installations.{name}.copies.{number}.remote: is a target of {owner} too; give each installation a directory of its own"
                )
            if is_directory(target.remote) and Path(target.remote) in (settings.repository, settings.directory):
                problems.append(
                    f"installations.{name}.copies.{number}.remote: {target.remote} is the repository or the installation itself; a copy belongs elsewhere"
                )
    return problems
