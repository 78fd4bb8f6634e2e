"""Mail at risk: what the accounts delete on their mail servers, against the newest proven copy away from here.

The application deletes mail on the server some days after it was archived. From then on a fire here takes what no proven
backup elsewhere holds yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.core.units import duration_text


@dataclass(frozen=True, slots=True)
class ServerDeletion:
    """What the mail accounts say: after how many days the first of them deletes mail on its server (None: none does).

    `accounts` is how many do. `seen_at` is when that was read; where it could not be read now, `unknown` says why, and
    the rest is what was seen last (None for `seen_at`: nothing ever was).
    """

    days: int | None = None
    accounts: int = 0
    seen_at: datetime | None = None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class MailOnServers:
    """How mail stands that is deleted on its server; `proven_away` is the moment of the newest verified and off-site backup's data."""

    deletion: ServerDeletion
    proven_away: datetime | None
    at: datetime

    @property
    def is_known(self) -> bool:
        """Tell whether it was ever seen what the accounts delete."""
        return self.deletion.seen_at is not None

    @property
    def away_seconds(self) -> float | None:
        """Give the age of the newest proven copy away from here; None where there is none."""
        return (self.at - self.proven_away).total_seconds() if self.proven_away is not None else None

    @property
    def is_at_risk(self) -> bool:
        """Tell whether mail is gone from its server that no proven copy elsewhere holds; False too where that is not known."""
        days = self.deletion.days
        if not self.is_known or days is None:
            return False
        if self.proven_away is None or self.proven_away > self.at:  # a copy of the future proves nothing
            return True
        return self.at - self.proven_away >= timedelta(days=max(days, 0))

    def __str__(self) -> str:
        """Tell it in a sentence."""
        deletion = self.deletion
        if not self.is_known:
            return f"when mail is deleted on the server is not known: {deletion.unknown or 'nobody has looked yet'}"
        as_of = f" (as of {deletion.seen_at:%Y-%m-%d %H:%M} UTC; now: {deletion.unknown})" if deletion.unknown else ""
        if deletion.days is None:
            return f"no enabled account deletes mail on its server{as_of}"
        days = "1 day" if deletion.days == 1 else f"{deletion.days} days"
        return f"mail is deleted on the server after {days} ({_accounts(deletion.accounts)}){as_of}; {self._away()}"

    def _away(self) -> str:
        seconds = self.away_seconds
        if seconds is None:
            return "there is no proven copy away from here"
        if seconds < 0:
            return "the newest proven copy away from here is dated after now"
        return f"the newest proven copy away from here is {age_text(seconds)} old"


def age_text(seconds: float) -> str:
    """Give an age as people count it beside days.

    >>> age_text(5 * 86_400 + 3600), age_text(7200)
    ('5 days', '2 h 0 min')
    """
    days = int(seconds // 86_400)
    return f"{days} days" if days >= 2 else duration_text(seconds)


def _accounts(count: int) -> str:
    return "1 account" if count == 1 else f"{count} accounts"
