"""Commands for the machine around: volumes, projects, images and files backed up, and brought back here or on another machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.backing_up import backup_told
from deployments.cli.options import (
    BackupName,
    Call,
    FromTarget,
    IdentityFile,
    Yes,
    command,
    confirmed,
    identity_used,
    reading_from,
    run_flow,
)
from deployments.cli.restoring import public_keys
from tasks.core.archive.origin import Words
from tasks.core.report.host import host_report
from tasks.run.config import config_at
from tasks.run.context import given_configs

backups, restores = typer.Typer(), typer.Typer()

Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        help="A single piece: volume:NAME, project:NAME (its files), image:NAME, file:/PATH; or volumes, images, files. May be repeated.",
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Replace what is there, and keep it aside under a dated name.")
]
Foreign = Annotated[
    bool, typer.Option("--foreign", help="Take an archive that no known key has made: you trust its maker.")
]
TrustedKey = Annotated[
    list[str] | None,
    typer.Option(help="The public key of the installation that made it, as `doctor` prints it; may be repeated."),
]


@backups.command("host")
@command
def backup_host(call: Call) -> None:
    """Put Docker volumes, compose projects, images and files of this machine into one archive, as the section `host` names them."""
    from flows.host_backup import host_backup

    record = run_flow(host_backup, call.installation_config.id)
    held = record.manifest.host
    told = {
        **backup_told(call, record),
        "host": held.model_dump(mode="json", exclude={"links"}) if held else None,
    }
    call.answer(told, host_report(record))


@restores.command("host")
@command
def restore_host(
    call: Call,
    backup: BackupName = "latest",
    only: Only = None,
    replace_pieces: Replace = False,
    yes: Yes = False,
    foreign: Foreign = False,
    trusted_key: TrustedKey = None,
    identity: IdentityFile = None,
    source: FromTarget = None,
) -> None:
    """Bring back volumes, images and files of a `backup host`, all or single ones; never over something that is there, unless you say so."""
    config = call.config or config_at("main", Path.cwd(), Path.cwd())
    words, keys = Words(foreign), public_keys(trusted_key or [])
    with (
        identity_used(identity),
        given_configs({config.id: config}),
        reading_from(replace(call, config=config), source, backup) as there,
    ):
        _restore(there, backup, tuple(only or ()), replace_pieces, yes, words, keys)


def _restore(
    call: Call,
    backup: str,
    only: tuple[str, ...],
    replaces: bool,
    yes: bool,
    words: Words,
    keys: tuple[str, ...],
) -> None:
    from flows.host_restore import host_restore, show_host_plan
    from tasks.core.machine.restore_plan import require_free

    config = call.installation_config
    found, wanted, plan = show_host_plan(config, backup, only, replace=replaces, words=words, trusted_keys=keys)
    require_free(plan)
    confirm = confirmed(f"{plan}\nThis will be done on this machine.", config.id, yes=yes)
    done = host_restore(config, found, wanted, plan, confirm)
    told = {
        "restored": done.backup, "done": done.done, "kept": done.kept, "notes": done.notes,
        "pieces": [{"kind": each.kind, "name": each.name, "act": each.act, "why": each.why} for each in plan.pieces],
    }  # fmt: skip
    lines = [str(plan), f"Restored {len(done.done)} pieces from {done.backup}."]
    lines += [f"The former one is kept as {each}." for each in done.kept] + [f"Note: {each}" for each in done.notes]
    call.answer(told, "\n".join(lines))
