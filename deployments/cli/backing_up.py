"""Commands that take backups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.options import (
    BackupName,
    Call,
    command,
    problems_told,
    run_flow,
)
from tasks.core.archive.manifest import Format, Method, Record
from tasks.core.policy.chains import OnlineKind
from tasks.core.policy.copy_plan import CopyWay
from tasks.core.report.texts import backup_report, retention_report, verification_report

if TYPE_CHECKING:
    from tasks.core.report.guests import GuestReport

commands = typer.Typer()
backup = typer.Typer(no_args_is_help=True)
commands.add_typer(backup, name="backup", help="Take a backup.", rich_help_panel="Backups")


@backup.command("hot")
@command
def backup_hot(
    call: Call, format: Annotated[Format | None, typer.Option(help="guide: .tar.gz, SQL; fast: .tar.zst")] = None
) -> None:
    """Back up the running stack, with no downtime (the guide's Method 2)."""
    from flows.hot_backup import hot_backup

    _answer_backup(call, run_flow(hot_backup, call.installation_config.id, format))


@backup.command("complete")
@command
def backup_complete(
    call: Call,
    way: Annotated[
        CopyWay | None, typer.Option(help="stream: straight into the archive; copy first: then only what changed.")
    ] = None,
) -> None:
    """Stop the stack, copy everything, start it again as soon as the bytes are copied (the guide's Method 1)."""
    from flows.complete_backup import complete_backup

    _answer_backup(call, run_flow(complete_backup, call.installation_config.id, way))


@backup.command("online")
@command
def backup_online(
    call: Call,
    incremental: Annotated[
        bool | None,
        typer.Option("--incremental/--full", help="Only what has changed, or everything; the setting if left out."),
    ] = None,
) -> None:
    """Take a complete backup of the running stack, with no downtime; or of what has changed since the one before."""
    from flows.online_backup import online_backup

    kinds: dict[bool | None, OnlineKind | None] = {None: None, True: "incremental", False: "full"}
    kind = kinds[incremental]
    _answer_backup(call, run_flow(online_backup, call.installation_config.id, kind))


@backup.command("synthetic")
@command
def backup_synthetic(call: Call, chain: BackupName = "latest") -> None:
    """Put a chain of incremental backups together to a full one, the database untouched."""
    from flows.synthetic_full import synthetic_full

    _answer_backup(call, run_flow(synthetic_full, call.installation_config.id, chain))


@backup.command("auto")
@command
def backup_auto(
    call: Call,
    method: Annotated[Method | None, typer.Option(help="hot, online or complete; the setting if left out.")] = None,
) -> None:
    """Back up, verify when that is due, apply retention, report and raise alarms (the guide's Method 3)."""
    from flows.automated_backup import automated_backup
    from flows.watch import watch

    night = run_flow(automated_backup, call.installation_config.id, method)
    verified, pruned = night.verified, night.pruned
    status_report = run_flow(watch, call.installation_config.id, alarm=False)
    told = {
        **backup_told(call, night.record),
        "verdict": verified.verification.verdict if verified else None,
        "removed": list(pruned.plan.removed) if pruned else [],
        "paused": list(pruned.plan.paused) if pruned else [],
        "report": str(status_report.page) if status_report.page else None,
        "problems": problems_told(status_report.status),
    }
    parts = [backup_report(night.record)]
    if verified:
        parts.append(verification_report(verified.archive, verified.verification))
    if pruned:
        parts.append(retention_report(call.installation_config.id, pruned.plan))
    call.answer(told, "\n".join([*parts, str(status_report.status)]))


@backup.command("proxmox")
@command
def backup_proxmox(call: Call) -> None:
    """Have Proxmox back up the guests of the settings as a whole (the guide's "Proxmox Backup", mode stop)."""
    from flows.proxmox_backup import proxmox_backup
    from tasks.core.guests.failed import GuestsFailed

    config = call.installation_config
    try:
        done = run_flow(proxmox_backup, config.id)
    except GuestsFailed as failed:
        _answer_guests(call, [each.report for each in failed.runs])
        raise typer.Exit(failed.exit_code) from None
    _answer_guests(call, [each.report for each in done])


def _answer_guests(call: Call, reports: Sequence[GuestReport]) -> None:
    from tasks.core.report.guests import guests_report

    call.answer({"guests": [each.told for each in reports]}, guests_report(call.installation_config.id, reports))


def _answer_backup(call: Call, record: Record) -> None:
    call.answer(backup_told(call, record), backup_report(record))


def backup_told(call: Call, record: Record) -> dict[str, Any]:
    """Give a finished backup as it stands in a command's JSON."""
    manifest = record.manifest
    return {
        "archive": str(call.installation_config.repository / record.file), "name": manifest.name, "method": manifest.method, "format": manifest.format,
        "bytes": record.bytes, "sha256": record.sha256, "seconds": record.seconds, "downtime_seconds": manifest.downtime_seconds,
        "warnings": manifest.warnings, "parents": [each.name for each in manifest.parents], "why_full": manifest.why_full,
    }  # fmt: skip
