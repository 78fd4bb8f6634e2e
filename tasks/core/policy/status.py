"""How an installation's backups stand: the newest, the newest proven, what a bad day would cost (RTO, RPO), and what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.core.archive.manifest import Record
from tasks.core.policy.clocks import is_ahead
from tasks.core.policy.copy_counts import CopyCounts, GuestStatus, TargetStatus
from tasks.core.policy.mail_at_risk import MailOnServers
from tasks.core.policy.retention import Candidate, current_shrinks
from tasks.core.policy.settings import AlarmKind, Alarms
from tasks.core.units import duration_text, size_text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and of which kind of alarm it is."""

    kind: AlarmKind
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """An installation's backups at a moment.

    `rto_seconds` is the restore time that the newest verification measured; `rpo_seconds` the age of the newest verified backup's data.
    `copy_counts` is the newest backup's by the 3-2-1-1-0 rule, `targets` where else backups are; both are empty where
    nothing is copied. `guests` are those of a Proxmox that carry it. `mail` is how mail stands that is deleted on its servers.
    """

    installation: str
    at: datetime
    backups: int
    newest: Record | None
    newest_verified: Record | None
    free_bytes: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    copy_counts: CopyCounts | None = None
    targets: tuple[TargetStatus, ...] = ()
    mail: MailOnServers | None = None
    guests: tuple[GuestStatus, ...] = ()

    @property
    def rto_seconds(self) -> float | None:
        """Give the last measured time of a restore."""
        found = self.newest_verified.verification if self.newest_verified else None
        return found.restore_seconds if found else None

    @property
    def rpo_seconds(self) -> float | None:
        """Give how much time's mail would be lost if the machine died now."""
        return self.age_seconds(self.newest_verified)

    def age_seconds(self, record: Record | None) -> float | None:
        """Give the age of a backup's data."""
        return (self.at - record.manifest.created_at).total_seconds() if record else None

    @property
    def facts(self) -> list[str]:
        """Tell in a few lines how it stands, the one of RTO and RPO first."""
        if self.rto_seconds is None or self.rpo_seconds is None:
            first = f"{self.installation}: no verified backup: how long a restore takes (RTO) and what it brings back is not known"
        else:
            first = (
                f"{self.installation}: a restore takes {duration_text(self.rto_seconds)} (RTO, measured) and brings back everything"
                f" up to {duration_text(self.rpo_seconds)} ago (RPO)"
            )
        newest, verified = self.age_seconds(self.newest), self.age_seconds(self.newest_verified)
        sealed = " (encrypted)" if self.newest and self.newest.manifest.encryption else ""
        return [
            first,
            f"{_count(self.backups)}; newest {_ago(newest)}{sealed}, newest verified {_ago(verified)}; {size_text(self.free_bytes)} free",
            *([self._copies()] if self.targets or self.guests else []),
            *(f"As a whole at Proxmox: {each.line(self.at)}" for each in self.guests),
            *([f"Mail on its servers: {self.mail}"] if self.mail is not None else []),
        ]

    def __str__(self) -> str:
        """Tell it in a few lines, and what is wrong after them."""
        lines = [
            *self.facts,
            *(f"{problem.kind.upper()}: {problem.text}" for problem in self.problems),
            *(f"Note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def _copies(self) -> str:
        """Tell in a line where else backups are."""
        at = "".join(
            f"; target {each.name}: {each.copies}, newest {_ago((self.at - each.newest).total_seconds() if each.newest else None)}"
            for each in self.targets
        )
        return f"Copies of the newest (copies-media-off-site-immutable-errors): {self.copy_counts or 'none'}{at}"


def judge(
    installation: str,
    records: Sequence[Record],
    candidates: Collection[Candidate],
    alarms: Alarms,
    *,
    now: datetime,
    free_bytes: int,
    minimum_free_bytes: int,
    shrink_limit_percent: float,
    last_failure: str = "",
    repository_problem: str = "",
    others: Sequence[Problem] = (),
    notes: Sequence[str] = (),
    copy_counts: CopyCounts | None = None,
    targets: Sequence[TargetStatus] = (),
    mail: MailOnServers | None = None,
    guests: Sequence[GuestStatus] = (),
) -> Status:
    """Judge an installation's own records (newest first, none dated after now). What is wrong is told worst first.

    `others` are problems that were found already (of clocks and of authenticity); `notes` are to be known, and wrong of nobody.
    """
    present = [each for each in candidates if not is_ahead(each.created, now)]
    newest = records[0] if records else None
    newest_verified = next((record for record in records if record.verified), None)
    problems = [
        *([Problem("repository", repository_problem)] if repository_problem else []),
        *others,
        *_overdue("backup", newest, None, now, alarms.backup_within_hours),
        *_overdue(
            "verified backup", newest_verified, records[-1] if records else None, now, alarms.verified_within_hours
        ),
    ]
    if newest is not None:
        problems += [Problem("keys", f"{newest.file}: {warning}") for warning in newest.manifest.warnings]
    if last_failure:
        problems.append(Problem("failure", last_failure))
    # Of the newest that was judged: a later backup that nobody has looked at yet makes nothing good.
    judged = next((record for record in records if record.verification is not None), None)
    if judged is not None and judged.verification is not None and not judged.verified:
        found = judged.verification
        why = "; ".join(found.differences[:5] or found.notes[:2]) or "its bytes changed"
        problems.append(Problem("verification", f"{judged.file} is {found.verdict}: {why}"))
    problems += [Problem("shrink", str(shrink)) for shrink in current_shrinks(present, shrink_limit_percent)[-1:]]
    needed = max(alarms.free_below_bytes, minimum_free_bytes + (newest.bytes if newest else 0))
    if free_bytes < needed:
        problems.append(
            Problem(
                "space", f"{size_text(free_bytes)} are free where {size_text(needed)} are wanted for the next backup"
            )
        )
    return Status(
        installation, now, len(records), newest, newest_verified, free_bytes, tuple(problems), tuple(notes), copy_counts, tuple(targets), mail, tuple(guests),
    )  # fmt: skip


def _overdue(
    what: str, record: Record | None, since: Record | None, now: datetime, within_hours: float
) -> list[Problem]:
    """Tell what is overdue; where there is none at all, only once so long has passed `since` the first that could have been."""
    measured = record or since
    age = now - measured.manifest.created_at if measured else None
    if age is not None and age <= timedelta(hours=within_hours):
        return []
    if record is None or age is None:
        return [Problem("overdue", f"there is no {what} at all")]
    limit = f"at most {within_hours:g} hours were asked for"
    return [Problem("overdue", f"the newest {what} is {duration_text(age.total_seconds())} old; {limit}")]


def _ago(seconds: float | None) -> str:
    return f"{duration_text(seconds)} ago" if seconds is not None else "never"


def _count(backups: int) -> str:
    return "1 backup" if backups == 1 else f"{backups} backups"
