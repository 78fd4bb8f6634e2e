"""Room (P14): a backup that would not fit is refused before anything starts, and one that fits is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import Refused
from tasks.core.policy.space import Need, dump_archive_bytes, require_room

SIZES = st.integers(0, 10**15)


@settings(max_examples=100, deadline=None)
@given(SIZES, SIZES, SIZES)
def test_an_archive_is_never_estimated_below_what_it_holds(tables: int, others: int, more: int) -> None:
    """Mail that does not compress grows a little on its way through a dump; more content never needs less room."""
    estimate = dump_archive_bytes(tables, others)

    assert estimate > tables * 1.13 + others
    assert dump_archive_bytes(tables + more, others) >= estimate
    assert dump_archive_bytes(tables, others + more) >= estimate


@pytest.mark.parametrize(
    ("free_bytes", "free_inodes", "minimum", "fits"),
    [
        (1000, 16, 0, True),
        (999, 16, 0, False),
        (1500, 16, 500, True),
        (1499, 16, 500, False),
        (10**12, 15, 0, False),
        (10**12, 16, 0, True),
    ],
)
def test_the_last_byte_and_the_last_inode_count(free_bytes: int, free_inodes: int, minimum: int, fits: bool) -> None:
    """What must stay free stays free; exactly enough is enough."""
    need = Need("the archive", "/srv/backups", 1000)

    def attempt() -> None:
        require_room(need, free_bytes=free_bytes, free_inodes=free_inodes, minimum_free_bytes=minimum)

    if fits:
        attempt()
    else:
        with pytest.raises(Refused):
            attempt()


def test_a_refusal_tells_what_where_and_how_much() -> None:
    """The operator reads the place, the need, what is free and what must stay so."""
    with pytest.raises(Refused) as caught:
        require_room(
            Need("the archive", "/srv/backups", 2_000_000), free_bytes=1_500_000, free_inodes=99, minimum_free_bytes=7_000
        )  # fmt: skip
    for word in ("the archive", "2,000,000", "/srv/backups", "1,500,000", "7,000"):
        assert word in caught.value.message
    assert caught.value.hint
    with pytest.raises(Refused, match=r"20,000 inodes in /tmp-like, where 3 are free"):
        require_room(Need("a copy", "/tmp-like", 1, inodes=20_000), free_bytes=99, free_inodes=3)
