"""The value a flow starts from: which installation, where its archives go, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.archive.manifest import Format, Method
from tasks.core.policy.limits import DumpLimits, ServiceLimits, StagingLimits
from tasks.core.policy.settings import Alarms, Notification, Retention, VerificationPolicy


@dataclass(frozen=True, slots=True)
class InstallationConfig:
    """What a run needs to know of an installation before it looks at it.

    `fresh` marks a host that is being set up from an archive: its application is started although it never ran.
    """

    id: str
    directory: Path
    repository: Path
    project: str | None = None
    format: Format = "guide"
    minimum_free_bytes: int = 0
    dump_limits: DumpLimits = field(default_factory=DumpLimits)
    staging_limits: StagingLimits = field(default_factory=StagingLimits)
    service_limits: ServiceLimits = field(default_factory=ServiceLimits)
    method: Method = "hot"
    defer_seconds: float = 3600
    approval_seconds: float = 3600
    retention: Retention = field(default_factory=lambda: Retention(keep_days=30))
    verification: VerificationPolicy = field(default_factory=VerificationPolicy)
    alarms: Alarms = field(default_factory=Alarms)
    notifications: tuple[Notification, ...] = ()
    log_file: Path | None = None
    metrics_directory: Path | None = None
    trusted_keys: tuple[str, ...] = ()
    fresh: bool = False

    @property
    def limit_seconds(self) -> float:
        """Give how long a whole run may take: time for a dump and for its load, and for what may be waited for before it.

        Each queue in Prefect has one place; a run that never ended would keep all others from ever beginning.
        """
        return 2 * self.dump_limits.total_seconds + self.defer_seconds + self.approval_seconds
