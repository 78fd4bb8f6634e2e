"""The plan of a restore: what the archive is, and what it would replace."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tasks.adapters.archive.repository import read_record
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session
from tasks.core.archive.names import time_in_name
from tasks.core.stack.installation import Installation
from tasks.core.units import duration_text, size_text
from tasks.restore.check_archive import check_backup, wanted_backup
from tasks.restore.config_files import compare_configuration
from tasks.restore.database_restore import wants_quarantine
from tasks.restore.origin import why_not_own
from tasks.run.config import InstallationConfig
from tasks.run.installations import read_installation
from tasks.step import step

KINDS = {"sql": "a dump in plain SQL", "custom": "a dump in custom format", "physical": "a whole data directory"}


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What would be restored; `path` is the archive's own, so that what was looked at is what is restored."""

    name: str
    path: str
    kind: str
    method: str
    archive_bytes: int
    data_bytes: int
    age_seconds: float | None
    verified: bool
    replaces: str
    quarantine: bool
    configuration: dict[str, str]
    foreign: str = ""

    def __str__(self) -> str:
        """Tell the plan as a short Markdown page, which a terminal shows as well."""
        age = duration_text(self.age_seconds) if self.age_seconds is not None else "unknown"
        rows = [
            *([("Origin", self._origin)] if self.foreign else []),
            ("Backup", f"{self.name}, {age} old, {'verified' if self.verified else 'never verified'} on staging"),
            (
                "Kind",
                f"{KINDS[self.kind]} ({self.method}), {size_text(self.archive_bytes)} holding {size_text(self.data_bytes)}",
            ),
            ("Replaces", self.replaces),
            (
                "Downtime",
                "about a second and the application's own start: the swap of what was loaded and proven beside",
            ),
            ("Way back", "the current data is kept until `commit`; `rollback` brings it back"),
            (
                "Mail accounts",
                "in quarantine until `lift-quarantine`" if self.quarantine else "synchronise and delete at once",
            ),
            ("Configuration", "not touched unless asked for; see below" if self.configuration else "the same as now"),
        ]
        differences = [
            f"\n`{name}` in the archive differs from the current one:\n\n```diff\n{difference.replace('```', '~~~')}\n```"
            for name, difference in self.configuration.items()
        ]
        return "\n".join([*(f"- {name}: **{value}**" for name, value in rows), *differences])

    @property
    def _origin(self) -> str:
        code = (
            "it brings its own code, roles and passwords, so it wants `--with-code` too"
            if self.kind == "physical"
            else "its SQL runs without rights beyond the new database; code that it brings is named, and refused without `--with-code`"
        )
        return f"not known as this installation's own ({self.foreign}): it wants `--foreign`; {code}"

    def question(self, installation: str) -> str:
        """Ask for approval in few lines: what is restored, what it replaces, and how it is taken back."""
        age = duration_text(self.age_seconds) if self.age_seconds is not None else "unknown"
        return "\n".join(
            [
                f"Restore **{self.name}** into **{installation}**?\n",
                f"- {age} old, {'verified' if self.verified else '**never verified**'}; {self.method}, {size_text(self.data_bytes)}",
                *([f"- **Foreign**: {self.foreign}"] if self.foreign else []),
                f"- Replaces {self.replaces}",
                "- `rollback` takes it back until `commit`; down for about a second and the application's start",
            ]
        )


@step(name="plan restore", run_name="plan restore of {backup}")
def plan_restore(config: InstallationConfig, backup: str, quarantine: bool | None = None) -> RestorePlan:
    """Check the archive, look at what it would replace, and say both; touch nothing."""
    archive = check_backup(config.archives, backup)
    stack = read_installation(config)
    manifest = archive.manifest
    foreign = why_not_own(config, stack, archive)
    moment = manifest.created_at if manifest else time_in_name(archive.name)
    return RestorePlan(
        name=archive.name,
        path=str(archive.path),
        kind=archive.kind,
        method=manifest.method if manifest else "legacy",
        archive_bytes=archive.bytes,
        data_bytes=archive.unpacked_bytes,
        age_seconds=(datetime.now(UTC) - moment).total_seconds() if moment else None,
        verified=bool(archive.record and archive.record.verified),
        replaces=_replaced(stack, archive.kind),
        quarantine=bool(foreign) or wants_quarantine(archive, quarantine, datetime.now(UTC)),
        configuration=compare_configuration(stack, archive),
        foreign=foreign,
    )


def _replaced(stack: Installation, kind: str) -> str:
    keys = " and the data-protection keys" if stack.keys_mount else ""
    if kind == "physical":
        return f"the data directory {stack.data_mount.source}{keys} of {stack.directory}"
    size = ""
    if stack.postgres.state == "running":
        with server_of(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
            found = opened.value(
                "SELECT pg_database_size(oid) FROM pg_database WHERE datname = %s", (stack.database.name,)
            )
            size = f" ({size_text(int(found))})" if found is not None else " (which is not there)"
    return f"the database {stack.database.name}{size}{keys} of {stack.directory}"


@step(name="look at archive", run_name="look at {backup}")
def fitting_restore(config: InstallationConfig, backup: str) -> Literal["dump", "data directory"]:
    """Tell which restore fits a backup: by its record where it has one, else by reading it. The restore itself checks every byte."""
    path = wanted_backup(config.archives, backup)
    record = read_record(path)
    if record is not None:
        return "dump" if record.manifest.method == "hot" else "data directory"
    return "data directory" if check_backup(config.archives, backup).kind == "physical" else "dump"
