"""What counts by the 3-2-1-1-0 rule: copies, kinds of media, off-site, immutable, errors after a restore test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.core.units import duration_text


@dataclass(frozen=True, slots=True)
class CopyCounts:
    """A backup's numbers; `errors` is None where no restore of these bytes was tested."""

    copies: int = 1
    media: int = 1
    off_site: int = 0
    immutable: int = 0
    errors: int | None = None

    def __str__(self) -> str:
        """Write them as the rule is written.

        >>> str(CopyCounts(3, 2, 1, 1, 0)), str(CopyCounts())
        ('3-2-1-1-0', '1-1-0-0-?')
        """
        errors = "?" if self.errors is None else str(self.errors)
        return f"{self.copies}-{self.media}-{self.off_site}-{self.immutable}-{errors}"


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """A target as it was last seen: how many copies count there, the moment of the newest one's data, and why it could not be reached."""

    name: str
    copies: int
    newest: datetime | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class SystemPlace:
    """A place with backups of the whole system: of each of its guests, the moments of those that count."""

    name: str
    medium: str
    off_site: bool
    moments: tuple[tuple[datetime, ...], ...]
    within: timedelta

    def holds(self, at: datetime) -> bool:
        """Tell whether the system's data of a moment are there: a backup of every guest was made at it or soon after."""
        return bool(self.moments) and all(any(at <= each <= at + self.within for each in some) for some in self.moments)


@dataclass(frozen=True, slots=True)
class GuestStatus:
    """A guest that carries the installation: how many backups of it count, no matter who made them, and the newest one's moment, place and verdict.

    `proven` is when one was last restored as a test and found to work.
    """

    guest: int
    name: str
    copies: int
    newest: datetime | None
    place: str = ""
    verification: str = ""
    problems: tuple[str, ...] = ()
    proven: datetime | None = None

    def line(self, now: datetime) -> str:
        """Tell it in a line."""
        if self.newest is None:
            return f"{self.name}: no backup"
        count = "1 backup" if self.copies == 1 else f"{self.copies} backups"
        verified = ", verified by the backup server" if self.verification == "ok" else ""
        proven = (
            f"; one proven by restoring it {duration_text((now - self.proven).total_seconds())} ago"
            if self.proven
            else ""
        )
        return f"{self.name}: {count}, newest {duration_text((now - self.newest).total_seconds())} ago at {self.place}{verified}{proven}"
