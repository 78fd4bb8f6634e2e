"""Copies over a slow link, and to a server whose clock is off: shown, kept within limits, told in words, and nothing sent twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tasks import progress
from tasks.adapters.archive.repository import list_backups
from tasks.oversight.copies import CopiesFailed
from tests.integration.copying import MIB, arrived, at, copy, copying_to, night
from tests.links import Link, link_to
from tests.targets import Server, serving

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served"), "s3") as server:
        yield server


@pytest.fixture
def link(s3: Server) -> Iterator[Link]:
    for each in (s3.files / "bucket").iterdir():
        each.unlink()
    with link_to(s3.port) as made:
        yield made


def through(server: Server, link: Link) -> dict[str, dict[str, str]]:
    """Give rclone's configuration for a server at the other end of a link."""
    return {"away": {**server.section, "endpoint": link.address}}


def test_a_slow_link_shows_progress_and_the_limit_is_kept(
    s3: Server, link: Link, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what may be sent is what the link carries: how far the copy is, is told all along; then the limit is what counts."""
    monkeypatch.setattr(progress._Log, "every_seconds", 0.5)
    link.bytes_per_second = MIB
    config = copying_to(tmp_path, "away:bucket", sections=through(s3, link), bandwidth=2 * MIB)
    made = night(config, 1, large=True)
    with caplog.at_level(logging.INFO):
        (done,) = copy(config)

    assert done.copied.sent == (made.manifest.name,)
    told = [each.getMessage() for each in caplog.records if each.getMessage().startswith("copy to a: ")]
    percents = [int(each.rsplit(", ", 1)[1].removesuffix(" %")) for each in told if each.endswith(" %")]
    assert len(percents) >= 2
    assert percents == sorted(percents)
    assert 0 < percents[0] < 100

    link.bytes_per_second = None
    again = night(config, large=True)
    link.sent.clear()
    link.moments.clear()
    begun = time.monotonic()
    copy(config)
    assert sum(count for name, count in link.sent.items() if again.file in name) >= again.bytes
    # rclone's limit lets a first burst through; over the whole way it holds.
    assert link.sent_bytes / (time.monotonic() - begun) < 2.2 * MIB
    assert link.fastest(1.0) < 4 * MIB


def test_a_server_whose_clock_jumps_is_told_and_the_link_carries_only_what_is_missing(
    s3: Server, link: Link, tmp_path: Path
) -> None:
    """The error names the clocks; what was sent before goes over the link no second time, as counted on the link itself."""
    link.bytes_per_second = MIB
    config = copying_to(tmp_path, "away:bucket", sections=through(s3, link))
    made = night(config, large=True)
    before = (config.repository / made.file).read_bytes()

    def jump(name: str, count: int) -> None:
        ordinary(name, count)
        if f"{made.file}.part-0001" in arrived(made):
            link.clock_off = timedelta(hours=1)

    ordinary, link.take = link.take, jump  # type: ignore[method-assign]
    with pytest.raises(
        CopiesFailed, match="target a "
    ):  # a question without a body (HEAD) is answered "Forbidden", and no more
        copy(config)
    with pytest.raises(CopiesFailed, match="target a says that the clocks differ too much") as failed:
        copy(config)
    assert "is this machine's clock right?" in failed.value.hint
    assert (config.repository / made.file).read_bytes() == before
    assert [each.name for each in list_backups(config.repository)] == [made.manifest.name]

    link.take, link.clock_off, link.bytes_per_second = ordinary, timedelta(), None  # type: ignore[method-assign]
    there = {name for name in at(s3) if name.startswith(made.file)}
    assert f"{made.file}.part-0001" in there
    link.sent.clear()
    (again,) = copy(config)
    assert again.copied.sent == (made.manifest.name,)
    assert again.copied.sent_bytes == made.bytes - len(there) * MIB
    carried = {Path(name).name: count for name, count in link.sent.items() if made.file in name}
    assert carried.keys().isdisjoint(there)
    # Requests are signed piece by piece, which adds a little.
    assert again.copied.sent_bytes <= sum(carried.values()) < again.copied.sent_bytes * 1.05
