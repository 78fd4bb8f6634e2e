"""What is made of guests' backups that were seen, from values alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.policy.proxmox_settings import Proxmox
from tasks.core.proxmox.judge_guests import guest_notes, guest_statuses, system_places
from tasks.core.proxmox.replies import TaskNow
from tasks.core.proxmox.seen import GuestsSeen, SeenCopy, last_tasks

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WANTED = Proxmox.model_validate(
    {"host": "pve.example", "token_file": "/t", "guests": [101, 102], "storage": "local", "within_hours": 50}
)


def copy_of(hours: float, *, guest: int = 101, place: str = "local", size: int = 1, state: str = "") -> SeenCopy:
    """Make a backup of so many hours ago."""
    return SeenCopy(
        guest=guest, place=place, name=f"b{hours}", at=NOW - timedelta(hours=hours), bytes=size, verification=state
    )


def statuses(*copies: SeenCopy) -> list[str]:
    """Give what is wrong with the first guest."""
    seen = GuestsSeen(looked_at=NOW, copies=list(copies))
    return list(guest_statuses(WANTED, seen, NOW, ours_by_schedule=False)[0].problems)


@given(
    st.lists(
        st.tuples(
            st.floats(-100, 500), st.sampled_from([101, 102]), st.integers(0, 2), st.sampled_from(["", "ok", "failed"])
        ),
        max_size=8,
    )
)
def test_a_guest_is_well_only_with_a_fresh_backup_of_its_own(found: list[tuple[float, int, int, str]]) -> None:
    """Neither another guest's, nor an empty one, nor one that was refuted, nor one of tomorrow."""
    copies = [copy_of(hours, guest=guest, size=size, state=state) for hours, guest, size, state in found]
    fresh = [one for one in found if 0 <= one[0] <= 50 and one[1] == 101 and one[2] and one[3] != "failed"]

    wrong = [each for each in statuses(*copies) if "failed their verification" not in each]

    if not any(-1 < one[0] < 0 for one in found):
        assert bool(wrong) is not bool(fresh)


def test_nothing_is_judged_that_was_never_looked_at() -> None:
    assert guest_statuses(WANTED, GuestsSeen(), NOW, ours_by_schedule=False) == []
    assert guest_notes(GuestsSeen()) == ["guests' backups at Proxmox were not looked at yet: `watch` does"]


def test_a_place_holds_the_system_when_every_guest_is_there() -> None:
    one = GuestsSeen(copies=[copy_of(1)])
    both = GuestsSeen(copies=[copy_of(1), copy_of(2, guest=102)])

    assert [each.holds(NOW - timedelta(hours=3)) for each in system_places(WANTED, one, NOW)] == [False]
    assert [each.holds(NOW - timedelta(hours=3)) for each in system_places(WANTED, both, NOW)] == [True]
    assert [each.holds(NOW - timedelta(hours=1.5)) for each in system_places(WANTED, both, NOW)] == [False]


def task(kind: str, guest: str, status: str, hours: float, *, running: bool = False) -> TaskNow:
    """Make a task of so many hours ago."""
    return TaskNow("", running, status, NOW - timedelta(hours=hours), guest, "root@pam", kind)


def test_the_last_task_of_each_kind() -> None:
    found = last_tasks(
        "pbs",
        [
            task("backup", "store1:ct/101", "", 1, running=True), task("backup", "store1:ct/101", "OK", 2), task("backup", "store1:ct/101", "broken", 3),
            task("backup", "store1:vm/900", "broken", 3), task("verificationjob", "store1:v-1", "failed", 4), task("garbage_collection", "store1", "broken", 1),
        ],
        [101],
    )  # fmt: skip

    assert [(each.guest, each.is_verification, each.status) for each in found] == [
        (101, False, "OK"),
        (0, True, "failed"),
    ]
