"""The report beside the backups: one HTML file that needs nothing from elsewhere, for a reader who has the disk and no server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from tasks.adapters.host.files import write_atomically
from tasks.adapters.outbox.pages import template
from tasks.core.policy.history import Entry
from tasks.core.policy.status import Status
from tasks.core.report.calendar import Night
from tasks.core.report.catalogue import CatalogueLine
from tasks.core.units import duration_text, size_text

SHOWN_RUNS = 30


def write_report_page(
    repository: Path,
    status: Status,
    lines: Sequence[CatalogueLine],
    charts: Sequence[str],
    entries: Sequence[Entry],
    calendar: Sequence[Night] = (),
) -> Path:
    """Write `report-ID.html` into the repository, readable by its owner alone; return the file."""
    page = template("report.html.j2").render(
        status=status,
        rto=_duration(status.rto_seconds),
        rpo=f"{duration_text(status.rpo_seconds)} ago" if status.rpo_seconds is not None else "not known",
        newest=_ago(status.age_seconds(status.newest)),
        free=size_text(status.free_bytes),
        lines=lines,
        charts=[Markup(chart) for chart in charts],
        calendar=calendar,
        targets=[
            (each, _ago((status.at - each.newest).total_seconds() if each.newest else None)) for each in status.targets
        ],
        entries=list(reversed(entries[-SHOWN_RUNS:])),
    )
    path = repository / f"report-{status.installation}.html"
    write_atomically(path, page.encode())
    return path


def _duration(seconds: float | None) -> str:
    return duration_text(seconds) if seconds is not None else "not known"


def _ago(seconds: float | None) -> str:
    return f"{duration_text(seconds)} ago" if seconds is not None else "none"
