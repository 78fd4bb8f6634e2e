"""Pictures of the run history: sizes, durations and verdicts over time, as SVG that needs nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pygal
from pygal.style import Style

from tasks.core.archive.manifest import Record
from tasks.core.plain_text import plain_line
from tasks.core.policy.history import BACKUP_RUNS, Entry
from tasks.core.units import duration_text, size_text

SHOWN = 60
# A few backups are drawn as the columns of as many days, not as a wall.
COLUMNS = 14
COLOURS = {
    "verified": "#2e9e5b",
    "not verified": "#8f9aa7",
    "legacy": "#8f9aa7",
    "different": "#d64545",
    "failed": "#d64545",
    "restore": "#3b7dd8",
    "downtime": "#e0912f",
}
_STYLE = Style(
    background="#ffffff", plot_background="#ffffff", foreground="#4a5560", foreground_strong="#1f2933",
    foreground_subtle="#c5ccd3", opacity="1", opacity_hover=".8", font_family="sans-serif", label_font_size=11,
    major_label_font_size=11, title_font_size=16, legend_font_size=12, value_font_size=10, tooltip_font_size=12,
    guide_stroke_color="#e3e7eb", major_guide_stroke_color="#e3e7eb", guide_stroke_dasharray="1,0", major_guide_stroke_dasharray="1,0",
)  # fmt: skip


def size_chart(installation: str, records: Sequence[Record], entries: Sequence[Entry]) -> str:
    """Draw the sizes of the last backups (`records` newest first), each in its verdict's colour.

    A run that left no backup is a gap marked in red.
    """
    nights = _nights(records, entries)
    chart = _chart(f"{installation}: size and verdict of each backup", nights, lambda value: size_text(value or 0))
    top = max((record.bytes for record in records), default=1)
    for verdict in ("verified", "not verified", "different", "failed"):
        values: list[Any] = []
        for _, found in nights:
            if isinstance(found, Record) and _verdict(found) == verdict:
                values.append({"value": found.bytes, "label": f"{found.manifest.method}, {verdict}"})
            elif isinstance(found, Entry) and verdict == "failed":
                values.append(
                    {"value": top * 0.02, "label": f"{found.run} {found.outcome}: {plain_line(found.message[:100])}"}
                )
            else:
                values.append(None)
        name = {"failed": "failed, or no backup", "different": "differs"}.get(verdict, verdict)
        if any(value is not None for value in values):
            chart.add(name, values)
    return _svg(
        chart, [verdict for verdict in ("verified", "not verified", "different", "failed") if _has(nights, verdict)]
    )


def duration_chart(installation: str, records: Sequence[Record]) -> str:
    """Draw how long the last backups took, how long the stack was down for them, and how long restoring them took."""
    nights = _labelled([(record.manifest.created_at, record) for record in reversed(records[:SHOWN])])
    chart = _chart(
        f"{installation}: duration of backups, restores and downtime", nights, lambda value: duration_text(value or 0)
    )
    shown = [found for _, found in nights if isinstance(found, Record)]
    chart.add("backup", [record.seconds for record in shown])
    chart.add(
        "restore, measured", [record.verification.restore_seconds if record.verification else None for record in shown]
    )
    chart.add("downtime", [record.manifest.downtime_seconds or None for record in shown])
    return _svg(chart, ["verified", "restore", "downtime"])


def _chart(title: str, nights: Sequence[tuple[str, Record | Entry]], formatter: Any) -> Any:
    chart = pygal.StackedBar if "size" in title else pygal.Bar
    made = chart(
        title=title, js=[], style=_STYLE, width=960, height=360, legend_at_bottom=True, legend_at_bottom_columns=4,
        x_label_rotation=30, show_minor_x_labels=False, truncate_label=-1, margin=12, margin_bottom=44, spacing=8, rounded_bars=2,
        disable_xml_declaration=True, no_data_text="no backups yet", explicit_size=True, value_formatter=formatter,
    )  # fmt: skip
    labels = [label for label, _ in nights]
    labels += [""] * (COLUMNS - len(labels))
    made.x_labels = labels
    made.x_labels_major = labels[:: max(1, len(labels) // 15)]
    return made


def _svg(chart: Any, colours: Sequence[str]) -> str:
    chart.config.style.colors = tuple(COLOURS[name] for name in colours) or ("#000000",)
    text: str = chart.render(is_unicode=True)
    # Settings for pygal's own script, which we do not load: a picture of plain shapes may stand anywhere.
    return re.sub(r"<script\b.*?</script>", "", text, count=1, flags=re.DOTALL)


def _nights(records: Sequence[Record], entries: Sequence[Entry]) -> list[tuple[str, Record | Entry]]:
    """Put backups and failed runs in one row by time, oldest first."""
    found: list[tuple[datetime, Record | Entry]] = [(record.manifest.created_at, record) for record in records]
    found += [
        (each.at, each) for each in entries if each.run in BACKUP_RUNS and each.outcome in ("failed", "interrupted")
    ]
    return _labelled(sorted(found, key=lambda pair: pair[0])[-SHOWN:])


def _labelled(found: Sequence[tuple[datetime, Record | Entry]]) -> list[tuple[str, Record | Entry]]:
    """Label moments by day, and by time too where a few days are all there is."""
    short = not found or found[-1][0] - found[0][0] < timedelta(days=3)
    return [(f"{at:%m-%d %H:%M}" if short else f"{at:%m-%d}", each) for at, each in found]


def _verdict(record: Record) -> str:
    if record.verified:
        return "verified"
    found = record.verification
    return found.verdict if found is not None and found.verdict in ("different", "failed") else "not verified"


def _has(nights: Sequence[tuple[str, Record | Entry]], verdict: str) -> bool:
    return any(
        (isinstance(found, Record) and _verdict(found) == verdict) or (isinstance(found, Entry) and verdict == "failed")
        for _, found in nights
    )
