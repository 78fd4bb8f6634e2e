"""The command of a bare machine: find a backup elsewhere, and set the whole stack up from it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.options import Call, IdentityFile, command, identity_used
from deployments.cli.restoring import public_keys, restored_lines, restored_told
from tasks.core.archive.origin import Words

if TYPE_CHECKING:
    from flows.recover_from import Recovered
    from tasks.core.copies.choose import Chosen

commands = typer.Typer()


@commands.command("recover-from", rich_help_panel="On the bad day")
@command
def recover_from(
    call: Call,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Where the backups are: a directory, a place of rclone's (NAME:path, with --rclone-config), or a target of the settings.",
        ),
    ],
    into: Annotated[Path, typer.Option(help="A new or empty directory for the stack.")],
    backup: Annotated[str, typer.Option(help="A backup's name, or `latest`.")] = "latest",
    identity: IdentityFile = None,
    trusted_key: Annotated[
        list[str] | None,
        typer.Option(
            help="The public key of the installation, as `doctor` and the recovery sheet show it; may be repeated."
        ),
    ] = None,
    rclone_config: Annotated[
        Path | None, typer.Option(help="rclone's configuration with the names and passwords of TARGET (0600).")
    ] = None,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="Take a backup that no known key has signed: its SQL gets no rights.")
    ] = False,
    with_code: Annotated[
        bool,
        typer.Option("--with-code", help="Take the functions, triggers and other code too that such a backup brings."),
    ] = False,
) -> None:
    """Set the whole stack up on a machine with only Docker: find the newest backup, check, decrypt and restore it in quarantine, start, and see it answer."""
    from flows.recover_from import recover_from as run
    from tasks.copies.recovery_place import recovery_place
    from tasks.copies.view import require_name

    require_name(backup)
    keys, directory = public_keys(trusted_key or []), into.resolve()
    place = recovery_place(target, directory, config=call.config, rclone_config=rclone_config)
    with identity_used(identity):
        done = run(
            place, directory, backup=backup, words=Words(foreign, with_code), trusted_keys=keys, project=call.project,
            on_choice=lambda chosen: call.tell(_choice(chosen)),
        )  # fmt: skip
    steps = _next_steps(done, directory)
    told = {
        "chosen": done.chosen.found.name, "why": done.chosen.why, "passed_over": list(done.chosen.passed_over), "directory": str(directory),
        "addresses": list(done.addresses), **restored_told(done.restored), "next": steps,
    }  # fmt: skip
    lines = [
        *restored_lines(done.restored),
        f"The application answers{f' at {done.addresses[0]}' if done.addresses else ' (its port is not published on this machine)'}.",
        "\nNext:",
        *(f"{number}. {each}" for number, each in enumerate(steps, 1)),
    ]
    call.answer(told, "\n".join(lines))


def _choice(chosen: Chosen) -> str:
    return "\n".join([f"Taken: {chosen.why}", *(f"  Not {each}" for each in chosen.passed_over)])


def _next_steps(done: Recovered, directory: Path) -> list[str]:
    """Say what is left to a person, in the order in which it is best done."""
    place = shlex.quote(str(directory))
    record = done.chosen.found.record
    key = record.manifest.origin.key if record is not None and record.manifest.origin is not None else ""
    steps = [f"Log in{f' at {done.addresses[0]}' if done.addresses else ''} and look whether your mail is there."]
    if done.restored.quarantined:
        steps.append(
            "Then let the mail accounts synchronise and delete on their servers again, as they did when the backup was taken:"
            f" mailarchiver-backup lift-quarantine --directory {place}"
        )
    steps.append(
        f"Take up backups again: mailarchiver-backup init --directory {place}, then mailarchiver-backup backup hot"
    )
    if key:
        steps.append(
            "So that the backups from before count as this machine's own: put the old signing key back (the recovery sheet tells how),"
            f" or write into the settings trusted_keys: [{json.dumps(key)}]"
        )
    return steps
