"""Commands for the system around, where no Proxmox is: guests of this host backed up as a whole, and restored under a new name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.backing_up import backup_told
from deployments.cli.options import (
    BackupName,
    Call,
    FromTarget,
    IdentityFile,
    command,
    identity_used,
    reading_from,
    run_flow,
)
from tasks.core.report.texts import system_report
from tasks.core.units import duration_text

if TYPE_CHECKING:
    from prefect import Flow

    from tasks.guests.restore_container import RestoredGuest
    from tasks.guests.runs import GuestRun

backups, restores = typer.Typer(), typer.Typer()

GuestToBackUp = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="One guest of the settings; left out: all of them.")
]
NewName = Annotated[str, typer.Option("--name", help="The new guest's name: one that is free.")]
Start = Annotated[bool, typer.Option("--start", help="Start it.")]
WithNetwork = Annotated[
    bool,
    typer.Option(
        "--with-network",
        help="Leave it its network, with new hardware addresses. The live application in it logs in to the same mailboxes as the first one.",
    ),
]
Foreign = Annotated[bool, typer.Option("--foreign", help="Take a backup that is not known as this installation's own.")]


@backups.command("lxc")
@command
def backup_lxc(call: Call, name: GuestToBackUp = None) -> None:
    """Back up the containers of LXC that the settings name as a whole: stopped, copied, and running again."""
    from flows.lxc_backup import lxc_backup

    _back_up(call, lxc_backup, name)


@backups.command("vm")
@command
def backup_vm(call: Call, name: GuestToBackUp = None) -> None:
    """Back up the virtual machines of libvirt that the settings name as a whole: shut down, copied, and running again."""
    from flows.vm_backup import vm_backup

    _back_up(call, vm_backup, name)


@restores.command("lxc")
@command
def restore_lxc(
    call: Call,
    name: NewName,
    backup: BackupName = "latest",
    start: Start = False,
    with_network: WithNetwork = False,
    foreign: Foreign = False,
    identity: IdentityFile = None,
    source: FromTarget = None,
) -> None:
    """Restore a container of LXC under a new name, beside whatever runs: without a network, and not started, unless that is said."""
    from flows.lxc_restore import lxc_restore

    with reading_from(call, source, backup) as there, identity_used(identity):
        _restore(there, lxc_restore, backup, name, start, with_network, foreign)


@restores.command("vm")
@command
def restore_vm(
    call: Call,
    name: NewName,
    backup: BackupName = "latest",
    start: Start = False,
    with_network: WithNetwork = False,
    foreign: Foreign = False,
    identity: IdentityFile = None,
    source: FromTarget = None,
) -> None:
    """Restore a virtual machine under a new name, beside whatever runs: its links down, and not started, unless that is said."""
    from flows.vm_restore import vm_restore

    with reading_from(call, source, backup) as there, identity_used(identity):
        _restore(there, vm_restore, backup, name, start, with_network, foreign)


def _back_up(call: Call, flow: Flow[[str, str], tuple[GuestRun, ...]], name: str | None) -> None:
    from tasks.core.guests.failed import GuestsFailed

    try:
        done = run_flow(flow, call.installation_config.id, name or "")
    except GuestsFailed as failed:
        _answer_runs(call, failed.runs)
        raise typer.Exit(failed.exit_code) from None
    _answer_runs(call, done)


def _answer_runs(call: Call, runs: Sequence[GuestRun]) -> None:
    made = [each.record for each in runs if each.record is not None]
    told: list[dict[str, Any]] = [
        {
            "guest": each.subject,
            **(backup_told(call, each.record) if each.record is not None else {}),
            "left_out": each.record.manifest.guest.left_out if each.record and each.record.manifest.guest else [],
            "error": str(each.error) if each.error else None,
        }
        for each in runs
    ]
    failed = [(each.subject, str(each.error)) for each in runs if each.error is not None]
    call.answer({"guests": told}, system_report(call.installation_config.id, made, failed))


def _restore(call: Call, flow: Flow[..., RestoredGuest], *wanted: str | bool) -> None:
    done = run_flow(flow, call.installation_config.id, *wanted)
    told = {
        "restored": done.backup, "of": done.subject, "name": done.name, "place": done.place, "files": done.files,
        "seconds": round(done.seconds, 3), "started": done.started, "notes": list(done.notes),
    }  # fmt: skip
    lines = [
        f"Restored {done.subject} of {done.backup} as {done.name} in {duration_text(done.seconds)}; it {'runs' if done.started else 'does not run'}.",
        *(f"Note: {each}" for each in done.notes),
    ]
    call.answer(told, "\n".join(lines))
