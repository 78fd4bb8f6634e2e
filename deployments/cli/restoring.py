"""Commands of the bad day: restore, go back, recover."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.default_group import DEFAULT, DefaultGroup
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
from tasks.core.archive.origin import Words
from tasks.core.archive.signatures import public_key_problem
from tasks.core.errors import UsageError
from tasks.core.units import duration_text

if TYPE_CHECKING:
    from tasks.restore.outcome import Restored

commands = typer.Typer()
restore = typer.Typer(cls=DefaultGroup)
commands.add_typer(
    restore,
    name="restore",
    help="Restore a backup, reversibly; or a guest as a whole.",
    rich_help_panel="On the bad day",
)


@restore.command(
    DEFAULT,
    epilog="A guest as a whole is restored by `restore lxc` or `restore vm`, under a new name: see `restore lxc --help`.",
)
@command
def restore_database(
    call: Call,
    backup: BackupName = "latest",
    yes: Yes = False,
    quarantine: Annotated[
        bool | None,
        typer.Option(
            help="Keep the restored mail accounts disabled; the default does so for backups older than a day."
        ),
    ] = None,
    restore_config: Annotated[bool, typer.Option(help="Also put the archive's configuration files in place.")] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave an object of the dump out, by the name that a failed verification told; may be repeated."
        ),
    ] = None,
    foreign: Annotated[
        bool,
        typer.Option(
            "--foreign",
            help="Restore an archive that is not known as this installation's own (the guide's, another host's): in quarantine.",
        ),
    ] = False,
    with_code: Annotated[
        bool,
        typer.Option(
            "--with-code", help="Take the functions, triggers and other code too that a foreign archive brings."
        ),
    ] = False,
    into: Annotated[
        Path | None, typer.Option(help="An empty directory of a fresh host: set the whole stack up from the archive.")
    ] = None,
    trusted_key: Annotated[
        list[str] | None,
        typer.Option(help="With --into: the public key of the installation, as `doctor` prints it; may be repeated."),
    ] = None,
    identity: IdentityFile = None,
    source: FromTarget = None,
) -> None:
    """Restore a backup, reversibly: the current data is kept until `commit`, and `rollback` brings it back."""
    with identity_used(identity), reading_from(call, source, backup) as there:
        _restore(
            there, backup, yes, quarantine, restore_config, without, Words(foreign, with_code), into, trusted_key or []
        )


def _restore(
    call: Call,
    backup: str,
    yes: bool,
    quarantine: bool | None,
    restore_config: bool,
    without: list[str] | None,
    words: Words,
    into: Path | None,
    trusted_key: list[str],
) -> None:
    from flows.guided_restore import guided_restore, restore_fresh_host, show_plan

    if trusted_key and into is None:
        raise UsageError("--trusted-key goes with --into", hint="the setting trusted_keys is for an installation")
    if into is not None:
        _answer_restore(
            call,
            restore_fresh_host(
                call.config,
                backup,
                into.resolve(),
                quarantine=quarantine,
                without=without,
                words=words,
                trusted_keys=public_keys(trusted_key),
                project=call.project,
            ),
        )
        return
    config = call.installation_config
    plan = show_plan(config.id, backup, quarantine) if not yes else ""
    confirm = confirmed(f"{plan}\nThe data of {config.directory} will be replaced.", config.id, yes=yes)
    restored = run_flow(
        guided_restore, config.id, backup, confirm, quarantine, restore_config, without, words.foreign, words.with_code
    )
    _answer_restore(call, restored)


def public_keys(texts: list[str]) -> tuple[str, ...]:
    """Take public keys from the command line; raise UsageError for what is none."""
    for each in texts:
        if problem := public_key_problem(each):
            raise UsageError(f"--trusted-key {each!r} {problem}", hint="`mailarchiver-backup doctor` prints the key")
    return tuple(texts)


@commands.command("rollback", rich_help_panel="On the bad day")
@command
def rollback(call: Call, yes: Yes = False) -> None:
    """Bring back what the last restore or upgrade replaced."""
    from flows.rollback import rollback as flow
    from flows.rollback import what_goes

    config = call.installation_config
    told = "" if yes else what_goes(config.id)
    confirm = confirmed(
        f"The data of {config.directory} will be replaced by what the last restore or upgrade put aside. {told}".strip(),
        config.id,
        yes=yes,
    )
    done = run_flow(flow, config.id, confirm)
    call.answer(
        {
            "rolled_back": done.backup,
            "database": done.of,
            "kept": done.kept,
            "last_dump": done.last_dump,
            "notes": list(done.notes),
        },
        str(done),
    )


@commands.command("commit", rich_help_panel="On the bad day")
@command
def commit(call: Call, yes: Yes = False) -> None:
    """Drop what restores and upgrades have put aside; afterwards there is no way back."""
    from flows.rollback import commit as flow

    config = call.installation_config
    confirm = confirmed(
        f"What restores and upgrades of {config.directory} have put aside will be dropped.", config.id, yes=yes
    )
    dropped = run_flow(flow, config.id, confirm)
    call.answer({"dropped": dropped}, "\n".join(f"dropped {name}" for name in dropped) or "nothing was kept")


@commands.command("lift-quarantine", rich_help_panel="On the bad day")
@command
def lift_quarantine(call: Call) -> None:
    """Let the mail accounts of restored data synchronise and delete again, as they did when the backup was taken."""
    from flows.rollback import lift_quarantine as flow

    lifted = run_flow(flow, call.installation_config.id)
    call.answer({"lifted": lifted}, f"{lifted} mail accounts have their settings back")


@commands.command("recover", rich_help_panel="On the bad day")
@command
def recover(call: Call) -> None:
    """Finish what killed runs left: start what they had stopped, complete or undo what they had begun. Safe to run at any time."""
    from tasks.adapters.archive.verification_keys import drop_stale_keys
    from tasks.oversight.stack_health import look_at_stack
    from tasks.recovery.recover import recover as settle
    from tasks.run.context import known_configs, notify_recovered

    done = settle(call.config.directory if call.config else None)
    drop_stale_keys(now=datetime.now(UTC))
    notify_recovered(done)
    told = [
        {"installation": each.installation_id, "kind": each.kind, "settled": each.settled, "message": each.message}
        for each in done
    ]
    for config in [call.config] if call.config else known_configs():
        told += [
            {"installation": config.id, "kind": "stack", "settled": each.mended, "message": each.text}
            for each in look_at_stack(config)
        ]
    call.answer(
        {"recovered": told},
        "\n".join(f"{each['installation']}: {each['message']}" for each in told) or "nothing was left to do",
    )
    if not all(each["settled"] for each in told):
        raise typer.Exit(1)


def _answer_restore(call: Call, restored: Restored) -> None:
    call.answer(restored_told(restored), "\n".join(restored_lines(restored)))


def restored_told(restored: Restored) -> dict[str, Any]:
    """Give what a restore did as it stands in a command's JSON."""
    return {
        "restored": restored.backup, "rollback": restored.kept.database if restored.kept else None,
        "downtime_seconds": restored.downtime_seconds, "seconds": restored.seconds,
        "quarantined": restored.quarantined > 0, "quarantined_accounts": restored.quarantined, "configuration": list(restored.configuration),
        "left_out": list(restored.left_out), "notes": list(restored.notes),
    }  # fmt: skip


def restored_lines(restored: Restored) -> list[str]:
    """Tell people what a restore did."""
    kept = restored.kept.database if restored.kept else None
    lines = [
        f"Restored {restored.backup} in {duration_text(restored.seconds)}, {duration_text(restored.downtime_seconds)} of it down.",
        f"The former data is kept as {kept}: `rollback` brings it back, `commit` drops it." if kept else "",
        f"Left out, as asked: {', '.join(restored.left_out)}. This is less than what was backed up."
        if restored.left_out
        else "",
        *(f"Note: {note}" for note in restored.notes),
        f"{restored.quarantined} mail accounts are in quarantine: `lift-quarantine` ends it."
        if restored.quarantined
        else "",
        *(f"{name} differs from the archive's:\n{difference}" for name, difference in restored.configuration.items()),
    ]
    return [line for line in lines if line]
