"""What is told of a run that backed up the host around."""

from __future__ import annotations

from tasks.core.archive.manifest import Record
from tasks.core.report.host import host_report
from tasks.oversight.reports import announce_copies, show_report
from tasks.oversight.run_page import show_status
from tasks.run.config import InstallationConfig
from tasks.surroundings import surroundings


def report_host(config: InstallationConfig, record: Record) -> None:
    """Show what the archive holds and what it lacks, announce it (`mailarchiver.host.completed`), and bring the status up to date."""
    show_report(f"host-{config.id}", host_report(record))
    payload = {"installation": config.id, "archive": record.manifest.name, "bytes": record.bytes}
    surroundings().announce("mailarchiver.host.completed", config.id, payload)
    announce_copies(config, record.manifest.name)
    show_status(config)
