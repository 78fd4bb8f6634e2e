"""Tell what an upgrade did."""

from __future__ import annotations

from tasks.core.report.texts import table
from tasks.core.units import duration_text
from tasks.oversight.reports import show_report
from tasks.surroundings import surroundings
from tasks.upgrade.application_upgrade import ApplicationUpgraded
from tasks.upgrade.upgrade import Upgraded


def report_upgrade(upgraded: Upgraded) -> None:
    """Show what an upgrade did, and how it is taken back."""
    show_report(f"upgrade-{upgraded.installation}", upgrade_report(upgraded))
    surroundings().announce("mailarchiver.upgrade.completed", upgraded.installation, {"image": upgraded.to_image})


def report_application_upgrade(upgraded: ApplicationUpgraded) -> None:
    """Show what an upgrade of the application did, and how it is taken back."""
    show_report(f"upgrade-{upgraded.installation}", application_upgrade_report(upgraded))
    surroundings().announce("mailarchiver.upgrade.completed", upgraded.installation, {"image": upgraded.to_image})


def application_upgrade_report(upgraded: ApplicationUpgraded) -> str:
    """Tell what an upgrade of the application did."""
    rows = [
        ("From", upgraded.from_image),
        ("To", f"{upgraded.to_image} ({upgraded.digest})"),
        ("Schema", f"{upgraded.schema_before or 'no version'} to {upgraded.schema_after or 'no version'}"),
        ("Mails", f"{upgraded.mails:,}"),
        ("Took", duration_text(upgraded.seconds)),
        (
            "Downtime",
            f"{duration_text(upgraded.downtime_seconds)} (rehearsed: {duration_text(upgraded.expected_seconds)})",
        ),
        ("Verified backup before it", upgraded.backup),
        ("Former database", f"kept as {upgraded.kept} until `mailarchiver-backup commit`"),
    ]
    if upgraded.files:
        rows.append(("Former configuration", f"kept as {', '.join(upgraded.files)}"))
    text = (
        f"# Upgrade of {upgraded.installation}\n\n{table(rows)}\n\nTo take it back: `mailarchiver-backup rollback`.\n"
    )
    return text + "".join(f"\nNote: {note}.\n" for note in upgraded.notes)


def upgrade_report(upgraded: Upgraded) -> str:
    """Tell what an upgrade did."""
    rows = [
        ("From", upgraded.from_image),
        ("To", upgraded.to_image),
        ("Took", duration_text(upgraded.seconds)),
        (
            "Downtime",
            f"{duration_text(upgraded.downtime_seconds)} (rehearsed: {duration_text(upgraded.expected_seconds)})",
        ),
        ("Last backup before it", upgraded.backup),
        ("Former data", f"kept as {upgraded.kept} until `mailarchiver-backup commit`"),
        ("Former configuration", f"kept as {', '.join(upgraded.files)}"),
    ]
    text = (
        f"# Upgrade of {upgraded.installation}\n\n{table(rows)}\n\nTo take it back: `mailarchiver-backup rollback`.\n"
    )
    return text + "".join(f"\nNote: {note}.\n" for note in upgraded.notes)
