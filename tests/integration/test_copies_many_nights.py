"""Forty nights with an off-site target that is away for a week: real backups, a real server, the clock of this process moved on.

`tests/unit/test_copies.py` has the same nights as decisions alone; this is its long form (`pytest -m long`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from tasks.core.archive.manifest import Record
from tasks.core.policy.settings import Retention
from tasks.oversight.copies import CopiesFailed
from tasks.oversight.status import read_status
from tests.integration.copying import at, copy, copying_to, night
from tests.links import Link, link_to
from tests.targets import serving

pytestmark = [pytest.mark.usefixtures("no_waiting"), pytest.mark.long, pytest.mark.timeout(900)]

FIRST = datetime(2026, 3, 1, 3, 30, tzinfo=UTC)
NIGHTS, AWAY = 40, range(10, 17)


def test_a_target_that_is_away_for_a_week_is_told_and_caught_up_with_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    """Overdue from the right night on until it is back, all that it missed sent then, and each archive over the link once."""
    with serving(tmp_path, "s3") as server, link_to(server.port) as link:
        section = {**server.section, "endpoint": link.address}
        config = copying_to(
            tmp_path, "away:bucket", sections={"away": section}, off_site=True, retention=Retention(keep_days=20)
        )
        made: list[Record] = []
        alarms: list[int] = []
        caught_up: list[str] = []
        for number in range(NIGHTS):
            with time_machine.travel(FIRST + timedelta(days=number), tick=True):
                if number == AWAY.start:
                    server.kill()
                elif number == AWAY.stop:
                    server.start()
                made.append(night(config))
                if number in AWAY:
                    with pytest.raises(CopiesFailed, match="does not answer"):
                        copy(config)
                else:
                    (done,) = copy(config)
                    assert done.copied.sent[0] == made[-1].manifest.name, "the newest goes first"
                    if number == AWAY.stop:
                        caught_up = list(done.copied.sent)
                status = read_status(config, now=datetime.now(UTC) + timedelta(hours=7))
                if any("overdue at target a" in each.text for each in status.problems):
                    alarms.append(number)

    # The newest copy is of night 9; the alarm comes once it is older than 50 hours.
    assert alarms == [number for number in AWAY if number >= 11]
    assert caught_up == [each.manifest.name for each in reversed(made[AWAY.start : AWAY.stop + 1])]
    assert times_sent(link, made) == {each.file: 1 for each in made}
    there = {name for name in at(server) if name.endswith(".tar.gz")}
    assert there == {each.file for each in made[-21:]}


def times_sent(link: Link, made: list[Record]) -> dict[str, float]:
    """Say how often each archive went over the link, by its bytes."""
    carried = {Path(name).name: count for name, count in link.sent.items()}
    # Requests are signed piece by piece, which adds a little.
    return {each.file: round(carried.get(each.file, 0) / each.bytes) for each in made}
