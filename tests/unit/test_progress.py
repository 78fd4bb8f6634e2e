"""Progress is told as it is: work that fails ends where it stood."""

from __future__ import annotations

import pytest

from tasks import progress


class Page(progress._Artifact):
    """What Prefect's page would show."""

    shown: list[float]

    def _send(self, moment: progress._Moment) -> None:
        self.shown = [*getattr(self, "shown", []), moment.percent or 0.0]


@pytest.mark.parametrize(("finished", "last"), [(True, 100.0), (False, 30.0)])
def test_only_finished_work_ends_at_100_percent(finished: bool, last: float) -> None:
    page = Page("extract")
    page.update(progress._Moment(10, 100, 1.0))

    page.end(progress._Moment(30, 100, 2.0), finished=finished)

    assert page.shown == [10.0, last]


def test_failed_work_says_so_in_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    def cut_short() -> None:
        with progress.progress("extract", expected_bytes=100) as tell:
            tell(30)
            raise ValueError("cut short")

    with pytest.raises(ValueError, match="cut short"):
        cut_short()

    said = capsys.readouterr().err
    assert "30 %" in said
    assert "FAILED after" in said
