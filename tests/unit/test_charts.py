"""Pictures of the run history: true, complete, and needing nothing from any network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from xml.etree import ElementTree

from tasks.core.archive.manifest import Record
from tasks.core.policy.history import Entry
from tasks.core.report.charts import COLOURS, SHOWN, duration_chart, size_chart
from tests.unit.values import NOW, record

SVG = "{http://www.w3.org/2000/svg}"


def failed(hours: float, message: str = "the disk is full", run: str = "hot backup") -> Entry:
    """Make the history's entry of a run that left no backup."""
    return Entry(run=run, at=NOW - timedelta(hours=hours), seconds=1, outcome="failed", message=message)


def words_of(svg: str) -> list[str]:
    """Read a picture's texts; it is well-formed."""
    return [text for element in ElementTree.fromstring(svg).iter() if (text := (element.text or "").strip())]


def bars_of(svg: str) -> int:
    """Count the bars that can be seen: one of no height is a gap."""
    return sum(
        element.tag == f"{SVG}rect"
        and "rect" in element.get("class", "").split()
        and float(element.get("height", "0")) > 0
        for element in ElementTree.fromstring(svg).iter()
    )


def colours_of(svg: str) -> list[str]:
    """Read which colours the series have, in their order."""
    return re.findall(r"\.color-\d+ a:visited\{stroke:\S+?;fill:(#\w+)\}", svg)


def nights(count: int) -> list[Record]:
    """Make so many nights' verified backups, newest first."""
    return [record(24 * number + 1, verdict="verified") for number in range(count)]


def test_each_backup_and_each_failure_has_its_bar() -> None:
    """A night that left no backup is a bar of its own in the colour of a failure; other runs are none."""
    records: Sequence[Record] = [
        record(1, verdict="verified"), record(25), record(49, verdict="different"), record(73, verdict="failed"),
        record(97, verdict="verified", verified_sha="of other bytes"),
    ]  # fmt: skip
    entries = [failed(121), failed(2, run="verify"), failed(3).model_copy(update={"outcome": "succeeded"})]

    shown = size_chart("main", records, entries)

    assert bars_of(shown) == 6
    words = words_of(shown)
    assert "main: size and verdict of each backup" in words
    assert [name for name in ("verified", "not verified", "differs", "failed, or no backup") if name in words] == [
        "verified", "not verified", "differs", "failed, or no backup",
    ]  # fmt: skip
    assert colours_of(shown) == [COLOURS[verdict] for verdict in ("verified", "not verified", "different", "failed")]


def test_a_colour_means_the_same_whatever_else_is_shown() -> None:
    """A picture without a verified backup does not draw the failed ones in green."""
    assert colours_of(size_chart("main", [record(1)], [failed(30)])) == [COLOURS["not verified"], COLOURS["failed"]]
    assert colours_of(size_chart("main", nights(3), [])) == [COLOURS["verified"]]
    assert colours_of(size_chart("main", [], [failed(30)])) == [COLOURS["failed"]]


def test_nothing_yet_is_a_picture_too() -> None:
    """The first look at the page comes before the first backup."""
    assert "no backups yet" in words_of(size_chart("main", [], []))
    assert "no backups yet" in words_of(duration_chart("main", []))


def test_a_long_history_shows_its_end() -> None:
    """A year of nights would be a wall."""
    assert bars_of(size_chart("main", nights(365), [])) == SHOWN
    assert bars_of(duration_chart("main", nights(365))) == 2 * SHOWN  # the backup's and the measured restore's


def test_a_picture_loads_nothing_and_runs_nothing() -> None:
    """It lies beside the backups, and a failure's message may hold anything."""
    hostile = '</svg><script>alert(1)</script><img src="http://evil.example/x">'
    for shown in (
        size_chart("<b>main</b>", [record(1, verdict="verified")], [failed(5, hostile)]),
        duration_chart("<b>main</b>", nights(2)),
    ):
        elements = list(ElementTree.fromstring(shown).iter())
        assert not [
            element for element in elements if element.tag.rpartition("}")[2] in ("script", "image", "img", "a", "b")
        ]
        for element in elements:
            assert not [value for value in element.attrib.values() if "//" in value]
        assert "@import" not in shown
        assert not re.findall(r"url\((?!#)", shown)


def test_durations_tell_backup_restore_and_downtime() -> None:
    """What was not measured has no bar."""
    measured = record(1, verdict="verified", downtime_seconds=5)

    assert bars_of(duration_chart("main", [measured])) == 3
    assert bars_of(duration_chart("main", [record(1)])) == 1
    assert {"backup", "restore, measured", "downtime"} <= set(words_of(duration_chart("main", [measured])))
