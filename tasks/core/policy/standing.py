"""How a backup stands by the 3-2-1-1-0 rule: copies, kinds of media, off-site, immutable, errors after a restore test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """A backup's numbers; `errors` is None where no restore of these bytes was tested."""

    copies: int = 1
    media: int = 1
    off_site: int = 0
    immutable: int = 0
    errors: int | None = None

    def __str__(self) -> str:
        """Write them as the rule is written.

        >>> str(Standing(3, 2, 1, 1, 0)), str(Standing())
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
