"""Mail that its server no longer has, and no proven copy elsewhere holds yet: told whenever it may be so, and never called fine unseen."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.copies.judge import newest_proven_away
from tasks.core.policy.mail_at_risk import MailOnServers, ServerDeletion
from tasks.core.policy.settings import CopyTarget
from tests.unit.test_copies import entry, seen
from tests.unit.values import NOW, record

HERE = CopyTarget(name="here", remote="/mnt/usb/mail")


def mail(days: int | None, away_hours: float | None, *, accounts: int = 1, unknown: str = "") -> MailOnServers:
    away = None if away_hours is None else NOW - timedelta(hours=away_hours)
    return MailOnServers(ServerDeletion(days, accounts, NOW - timedelta(hours=1), unknown), away, NOW)


def test_it_is_said_as_people_say_it() -> None:
    found = mail(3, 5 * 24)
    assert found.is_at_risk
    assert str(found) == (
        "mail is deleted on the server after 3 days (1 account); the newest proven copy away from here is 5 days old"
    )
    assert "after 1 day (2 accounts)" in str(mail(1, 2, accounts=2))
    assert "2 h 0 min old" in str(mail(1, 2))


@pytest.mark.parametrize(
    ("days", "away_hours", "at_risk"),
    [
        (3, 71.9, False),
        (3, 72, True),
        (3, 73, True),
        (3, None, True),  # none at all is away, or none that is proven
        (0, 0, True),  # deleted as soon as it is archived
        (0, None, True),
        (3, -1, True),  # dated after now: a clock is wrong, and nothing is proven by it
        (None, None, False),
        (None, 9000, False),
    ],
)
def test_mail_is_at_risk_from_the_moment_on_when_its_server_may_have_deleted_it(
    days: int | None, away_hours: float | None, at_risk: bool
) -> None:
    assert mail(days, away_hours).is_at_risk is at_risk


@given(st.integers(0, 5000), st.floats(0, 200_000), st.floats(0, 200_000))
def test_an_older_copy_and_an_earlier_deletion_are_never_safer(days: int, hours: float, older: float) -> None:
    if mail(days, hours).is_at_risk:
        assert mail(days, hours + older).is_at_risk
        assert mail(days, None).is_at_risk
    if mail(days + 1, hours).is_at_risk:
        assert mail(days, hours).is_at_risk


def test_what_was_not_seen_is_not_known_and_never_fine() -> None:
    """Where the database cannot be asked, what was seen last still holds; where nothing ever was, that is said."""
    unseen = MailOnServers(ServerDeletion(unknown="PostgreSQL is exited"), NOW, NOW)
    assert (unseen.is_known, unseen.is_at_risk) == (False, False)
    assert "not known: PostgreSQL is exited" in str(unseen)
    assert "nobody has looked yet" in str(MailOnServers(ServerDeletion(), None, NOW))
    remembered = mail(3, 5 * 24, unknown="PostgreSQL is exited")
    assert remembered.is_at_risk
    assert "as of" in str(remembered)
    assert "PostgreSQL is exited" in str(remembered)
    assert "no enabled account deletes" in str(mail(None, None, accounts=0))


def test_only_a_backup_that_is_both_verified_and_away_counts() -> None:
    old, new = record(100, verdict="verified"), record(1)
    refuted, other = record(2, verdict="different"), record(3, verdict="verified", verified_sha="of other bytes")
    local_only = record(4, verdict="verified")
    records = [new, refuted, other, local_only, old]
    away = seen(*(entry(each) for each in (new, refuted, other, old)))
    here = seen(*(entry(each) for each in records), target=HERE)

    assert newest_proven_away(records, [here, away]) == old.manifest.created_at
    assert newest_proven_away(records, [here]) is None
    assert newest_proven_away([], [away]) is None
    assert newest_proven_away([old], [seen(entry(old, problem="missing"))]) is None
    assert newest_proven_away([old], [seen(entry(old, sha256="another"))]) is None
    assert newest_proven_away([old], [seen(entry(old, copied_at=None))]) is None
