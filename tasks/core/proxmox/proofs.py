"""What restoring guests' backups has proven, and whether that is as recent as was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from tasks.core.archive.manifest import Record
from tasks.core.archive.values import Count, Moment, Name, Seconds, Value
from tasks.core.dump.census import table_of
from tasks.core.proxmox.seen import SeenCopy
from tasks.core.units import duration_text

ProofVerdict = Literal["verified", "failed"]


class GuestProof(Value):
    """How the test of a guest's backup ended. What it did not come to is 0, or empty.

    `restored_as` is the id that the restored guest had. `accounts` were neutralised before the application was started, `mails` and
    `attachments` counted. `expected` is the number of mails in the newest backup of the application that is older.
    """

    guest: Count
    at: Moment
    verdict: ProofVerdict
    problem: Annotated[str, Field(max_length=4096)] = ""
    backup: Name = ""
    backup_at: Moment | None = None
    restored_as: Count = 0
    booted: bool = False
    accounts: Count | None = None
    application: bool = False
    mails: Count | None = None
    attachments: Count = 0
    expected: Count | None = None
    expected_from: Name = ""
    restore_seconds: Seconds = 0.0
    seconds: Seconds = 0.0


class GuestProofs(Value):
    """The last test of each guest, and the last that proved a backup."""

    last: dict[str, GuestProof] = Field(default_factory=dict)
    proven: dict[str, GuestProof] = Field(default_factory=dict)

    def after(self, proof: GuestProof) -> GuestProofs:
        """Give what is known once another test has ended."""
        key = str(proof.guest)
        proven = {**self.proven, key: proof} if proof.verdict == "verified" else self.proven
        return GuestProofs(last={**self.last, key: proof}, proven=proven)


def mails_before(records: Sequence[Record], at: datetime) -> tuple[int, str] | None:
    """Give how many mails the newest backup of the application held that is not newer than a guest's, and its name; None: nobody knows.

    `records` stand newest first.
    """
    for record in records:
        census = record.manifest.census or (record.restored_census.census if record.restored_census else None)
        if census is None or record.manifest.created_at > at:
            continue
        rows = [
            each.rows for name, each in census.tables.items() if table_of(name).rpartition(".")[2] == '"ArchivedEmails"'
        ]
        if rows:
            return sum(rows), record.manifest.name
    return None


def too_few(mails: int, before: int, shrink_limit_percent: float) -> bool:
    """Tell whether a guest's backup holds so much fewer mails than a backup before it that it cannot be right.

    >>> too_few(790, 1000, 20), too_few(800, 1000, 20), too_few(0, 0, 20)
    (True, False, False)
    """
    return mails < before * (1 - shrink_limit_percent / 100)


def proof_problems(
    name: str,
    last: GuestProof | None,
    proven: GuestProof | None,
    copies: Sequence[SeenCopy],
    within_hours: float,
    now: datetime,
) -> list[str]:
    """Tell what is wrong with the tests of a guest's backups: the last one failed, or there was none for too long.

    A guest whose first backup is younger than that may wait for its first test.
    """
    problems = []
    if last is not None and last.verdict == "failed":
        what = f"the test of {last.backup} of {name}" if last.backup else f"the test of a backup of {name}"
        problems.append(f"{what} failed ({last.at:%Y-%m-%d %H:%M} UTC): {last.problem}")
    limit = f"at most {within_hours:g} hours were asked for"
    first = proven.at if proven is not None else min((each.at for each in copies), default=None)
    if first is not None and now - first > timedelta(hours=within_hours):
        age = duration_text((now - first).total_seconds())
        if proven is None:
            problems.append(f"no backup of {name} was proven by restoring it, and the first is {age} old; {limit}")
        else:
            problems.append(f"a backup of {name} was last proven by restoring it {age} ago; {limit}")
    return problems
