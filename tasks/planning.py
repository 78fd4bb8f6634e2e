"""The plan of a restore: what the archive is, and what it would replace."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tasks.adapters.repository import find_backup, read_record
from tasks.checking import check_backup
from tasks.core.names import time_in_name
from tasks.core.units import duration_text, size_text
from tasks.step import step
from tasks.work import Work

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

    def __str__(self) -> str:
        """Tell the plan in a few lines."""
        age = duration_text(self.age_seconds) if self.age_seconds is not None else "unknown"
        proven = "verified on staging" if self.verified else "never verified on staging"
        return (
            f"{self.path}: {KINDS[self.kind]} ({self.method}), {size_text(self.archive_bytes)} holding {size_text(self.data_bytes)};"
            f" age of the data: {age}; {proven}.\n"
            "It is loaded and proven beside the current data; the application is down only while the two are swapped (about a second"
            " and its own start). The current data is kept until `commit`."
        )


@step(name="plan restore", run_name="plan restore of {backup}")
def plan_restore(work: Work, backup: str) -> RestorePlan:
    """Check the archive and say what it is."""
    archive = check_backup(work.repository, backup)
    manifest = archive.manifest
    moment = manifest.created_at if manifest else time_in_name(archive.name)
    return RestorePlan(
        name=archive.name,
        path=str(archive.path),
        kind=archive.kind,
        method=manifest.method if manifest else "legacy",
        archive_bytes=archive.bytes,
        data_bytes=sum(member.bytes for member in archive.members),
        age_seconds=(datetime.now(UTC) - moment).total_seconds() if moment else None,
        verified=bool(archive.record and archive.record.verified),
    )


@step(name="look at archive", run_name="look at {backup}")
def fitting_restore(work: Work, backup: str) -> Literal["dump", "data directory"]:
    """Tell which restore fits a backup: by its record where it has one, else by reading it. The restore itself checks every byte."""
    path = find_backup(work.repository, backup)
    record = read_record(path)
    if record is not None:
        return "dump" if record.manifest.method == "hot" else "data directory"
    return "data directory" if check_backup(work.repository, backup).kind == "physical" else "dump"
