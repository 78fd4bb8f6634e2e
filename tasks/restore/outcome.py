"""The options of a restore, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.core.errors import Refused
from tasks.core.policy.limits import DumpLimits
from tasks.core.report.comparisons import Comparison
from tasks.restore.directory_swap import KeptDirectories
from tasks.restore.kept_database import Kept

QUARANTINE_AFTER_HOURS = 24


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to restore: `quarantine` None decides by the backup's age; `neutralise` is for staging alone.

    `start_application` starts an application that did not run before (staging, a fresh host). `without` names objects
    of the dump that are left out, as `tasks/core/dump/left_out.py` says. `foreign` says why the archive is not known as
    the installation's own, "" for its own; `with_code` takes the code too that such a dump brings.
    """

    quarantine: bool | None = None
    neutralise: bool = False
    start_application: bool = False
    limits: DumpLimits = field(default_factory=DumpLimits)
    without: tuple[str, ...] = ()
    foreign: str = ""
    with_code: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. `kept` is what was in place before, None where a difference stopped it before the swap.

    `comparisons` names what was compared (`tasks/core/report/comparisons.py`); `left_out` names what was left out,
    `notes` say what was out of the ordinary.
    """

    backup: str
    kept: Kept | KeptDirectories | None
    differences: tuple[str, ...]
    downtime_seconds: float
    seconds: float
    quarantined: int
    rows: int
    tables: int
    configuration: dict[str, str] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    attachments: int = 0
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def require_equal(restored: Restored) -> None:
    """Raise Refused where the replacement differed from the backup, so that nothing was swapped."""
    if restored.differences:
        raise Refused(
            f"{restored.backup} did not restore to what was backed up; the current data was left in place: "
            + "; ".join(restored.differences),
            hint="verify another backup: mailarchiver-backup list",
        )
