"""The report of a backup of the host around."""

from __future__ import annotations

from tasks.core.archive.manifest import Record
from tasks.core.plain_text import cell
from tasks.core.report.texts import table
from tasks.core.units import duration_text, size_text

NOTES_SHOWN = 50


def host_report(record: Record) -> str:
    """Write what an archive holds of the host, and what it lacks."""
    about = record.manifest
    held = about.host
    if held is None:
        return ""
    rows = [
        ("Archive", record.file), ("Size", size_text(record.bytes)), ("Took", duration_text(record.seconds)),
        ("SHA-256", record.sha256), ("Host", f"{held.hostname}, {held.system}"),
        *(("Volume", f"{each.name}{'' if each.consistent else ', read while in use: not of one moment'}") for each in held.volumes),
        *(("Project", f"{each.name}, {len(each.files)} files of {each.directory}") for each in held.projects),
        *(("Image", f"{each.name}, {'saved' if each.member else 'its digest'}") for each in held.images),
        ("Paths", ", ".join(held.paths) or "none"), ("Packages", held.packages or "no list"),
    ]  # fmt: skip
    text = f"# Backup of the host of {about.installation}\n\n{table(rows)}\n"
    shown = about.warnings[:NOTES_SHOWN]
    if shown:
        text += "\nWhat it lacks, or was not of one moment:\n\n" + "\n".join(f"- {cell(each)}" for each in shown) + "\n"
    if len(about.warnings) > NOTES_SHOWN:
        text += f"- and {len(about.warnings) - NOTES_SHOWN} more\n"
    return text
