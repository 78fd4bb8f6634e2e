"""`mailarchiver-backup`: the flows in-process, without a Prefect server. Thin: read options, call a flow, show its result."""

from __future__ import annotations

import io
import json
import os
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.cli_options import Call, answering, catch_signals, command, confirmed, refuse_bad_input, run_flow
from tasks.core.archive.manifest import Format, Method, Record
from tasks.core.errors import UsageError
from tasks.core.plain_text import plain
from tasks.core.policy.copy_plan import CopyWay
from tasks.core.policy.status import Status
from tasks.core.report.texts import backup_report, retention_report, verification_report
from tasks.core.units import duration_text, size_text

app = typer.Typer(
    name="mailarchiver-backup", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
)  # fmt: skip
backup_app = typer.Typer(no_args_is_help=True, help="Take a backup.")
app.add_typer(backup_app, name="backup")

BackupName = Annotated[str, typer.Argument(metavar="[BACKUP]", help="An archive's path, a backup's name, or `latest`.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts.")]


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(version("mailarchiver-backup"))
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Back up a Mail Archiver stack, prove the backup by restoring it, and restore it reversibly."""


@backup_app.command("hot")
@command
def backup_hot(
    call: Call, format: Annotated[Format | None, typer.Option(help="guide: .tar.gz, SQL; fast: .tar.zst")] = None
) -> None:
    """Back up the running stack, with no downtime (the guide's Method 2)."""
    from flows.hot_backup import hot_backup

    _answer_backup(call, run_flow(hot_backup, call.installation_config.id, format))


@backup_app.command("complete")
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


@backup_app.command("online")
@command
def backup_online(call: Call) -> None:
    """Take a complete backup of the running stack, with no downtime."""
    from flows.online_backup import online_backup

    _answer_backup(call, run_flow(online_backup, call.installation_config.id))


@backup_app.command("auto")
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
        **_backup_told(call, night.record),
        "verdict": verified.verification.verdict if verified else None,
        "removed": list(pruned.plan.removed) if pruned else [],
        "paused": list(pruned.plan.paused) if pruned else [],
        "report": str(status_report.page) if status_report.page else None,
        "problems": _problems_told(status_report.status),
    }
    parts = [backup_report(night.record)]
    if verified:
        parts.append(verification_report(verified.archive, verified.verification))
    if pruned:
        parts.append(retention_report(call.installation_config.id, pruned.plan))
    call.answer(told, "\n".join([*parts, str(status_report.status)]))


@app.command("restore")
@command
def restore(
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
) -> None:
    """Restore a backup, reversibly: the current data is kept until `commit`, and `rollback` brings it back."""
    from flows.guided_restore import guided_restore, restore_fresh_host, show_plan

    if into is not None:
        _answer_restore(
            call,
            restore_fresh_host(
                call.config, backup, into.resolve(), quarantine=quarantine, without=without, with_code=with_code
            ),
        )
        return
    config = call.installation_config
    plan = show_plan(config.id, backup, quarantine) if not yes else ""
    confirm = confirmed(f"{plan}\nThe data of {config.directory} will be replaced.", config.id, yes=yes)
    restored = run_flow(
        guided_restore, config.id, backup, confirm, quarantine, restore_config, without, foreign, with_code
    )
    _answer_restore(call, restored)


@app.command("rollback")
@command
def rollback(call: Call, yes: Yes = False) -> None:
    """Bring back what the last restore replaced."""
    from flows.rollback import rollback as flow

    config = call.installation_config
    confirm = confirmed(
        f"The data of {config.directory} will be replaced by what the last restore put aside.", config.id, yes=yes
    )
    done = run_flow(flow, config.id, confirm)
    call.answer(
        {"rolled_back": done.backup, "database": done.of, "kept": done.kept},
        f"The data from before the restore of {done.backup} is back. What the restore had brought is kept as {done.kept} until `commit`.",
    )


@app.command("commit")
@command
def commit(call: Call, yes: Yes = False) -> None:
    """Drop what restores have put aside; afterwards there is no way back."""
    from flows.rollback import commit as flow

    config = call.installation_config
    confirm = confirmed(f"What restores of {config.directory} have put aside will be dropped.", config.id, yes=yes)
    dropped = run_flow(flow, config.id, confirm)
    call.answer({"dropped": dropped}, "\n".join(f"dropped {name}" for name in dropped) or "nothing was kept")


@app.command("lift-quarantine")
@command
def lift_quarantine(call: Call) -> None:
    """Let the mail accounts of restored data synchronise and delete again, as they did when the backup was taken."""
    from flows.rollback import lift_quarantine as flow

    lifted = run_flow(flow, call.installation_config.id)
    call.answer({"lifted": lifted}, f"{lifted} mail accounts have their settings back")


@app.command("verify")
@command
def verify(call: Call, backup: BackupName = "latest") -> None:
    """Prove a backup by restoring it on an isolated staging stack."""
    from flows.restore_verification import restore_verification
    from tasks.verification.verify import NotProven

    try:
        done = run_flow(restore_verification, call.installation_config.id, backup)
    except NotProven as refuted:
        done = refuted.verified
    found = done.verification
    wanted = (
        "verdict",
        "rows",
        "tables",
        "attachments",
        "differences",
        "notes",
        "compared",
        "restore_seconds",
        "seconds",
        "archive_sha256",
    )
    told = {"archive": str(done.path), **found.model_dump(mode="json", include=set(wanted))}
    call.answer(told, verification_report(done.archive, found))
    if not done.holds:
        raise typer.Exit(1)


@app.command("check")
@command
def check(
    call: Call, archive: Annotated[str, typer.Argument(help="An archive's path, a backup's name, or `latest`.")]
) -> None:
    """Read an archive from its first byte to its last and compare it with its manifest."""
    from tasks.adapters.archive.ownership import authenticity_of_checked
    from tasks.core.archive.authenticity import Trust
    from tasks.restore.check_archive import check_backup
    from tasks.run.own_backups import choose_backup, trust_of

    config = call.config
    name = choose_backup(config, archive) if config else archive
    found = check_backup(config.repository if config else Path.cwd(), name)
    whose = authenticity_of_checked(trust_of(config) if config else Trust(""), found)
    told = {
        "archive": str(found.path), "name": found.name, "kind": found.kind, "format": found.format, "bytes": found.bytes,
        "sha256": found.sha256, "members": len(found.members), "legacy": found.manifest is None, "authenticity": str(whose) if config else None,
        "authenticity_reason": whose.reason,
    }  # fmt: skip
    note = "" if found.manifest else " It is a legacy archive: no manifest says what it must hold."
    call.answer(
        told,
        f"{found.path.name} is whole: {len(found.members)} files, {size_text(found.bytes)}, SHA-256 {found.sha256}.{note}\n"
        + (f"Whose it is: {whose}{f' ({whose.reason})' if whose.reason else ''}." if config else ""),
    )


@app.command("list")
@command
def list_backups(call: Call) -> None:
    """List the backups in the repository, newest first."""
    from tasks.adapters.archive.ownership import judge_backups
    from tasks.adapters.archive.repository import list_backups as listed
    from tasks.adapters.archive.repository_marker import require_repository
    from tasks.run.own_backups import trust_of

    require_repository(call.installation_config.repository)
    found = listed(call.installation_config.repository)
    whose = judge_backups(trust_of(call.installation_config), found)
    told = [
        {
            "name": each.name, "method": each.method, "format": each.format, "bytes": each.bytes,
            "created": each.created.isoformat() if each.created else None, "verified": each.verified and whose[each.name].counts, "archive": str(each.path),
            "authenticity": str(whose[each.name]), "authenticity_reason": whose[each.name].reason,
        }
        for each in found
    ]  # fmt: skip
    lines = [
        f"{each.name:40} {each.method:9} {size_text(each.bytes):>10}  "
        f"{'verified' if each.verified and whose[each.name].counts else 'not verified':12}  {whose[each.name]}"
        for each in found
    ]
    call.answer(told, "\n".join(lines) or f"no backups in {call.installation_config.repository}")


@app.command("prune")
@command
def prune(
    call: Call,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would stay and go, and why.")] = False,
    accept_shrink: Annotated[
        bool,
        typer.Option("--accept-shrink", help="What the newest backup lost was meant to go: measure by it from now on."),
    ] = False,
) -> None:
    """Remove the backups that no rule of the retention keeps; never the last good ones, and nothing while something is odd."""
    from flows.prune import prune as flow

    done = run_flow(flow, call.installation_config.id, dry_run, accept_shrink)
    decisions = [{"name": each.name, "keep": each.keep, "reasons": list(each.reasons)} for each in done.plan.decisions]
    told = {
        "removed": [] if dry_run else list(done.plan.removed), "would_remove": list(done.plan.removed) if dry_run else [],
        "freed_bytes": done.freed_bytes, "paused": list(done.plan.paused), "accepted": done.accepted, "backups": decisions,
    }  # fmt: skip
    call.answer(told, retention_report(call.installation_config.id, done.plan))


@app.command("status")
@command
def status(
    call: Call,
    alarm: Annotated[
        bool, typer.Option("--alarm", help="Send notifications for the problems found; for timers.")
    ] = False,
) -> None:
    """Show backup status: latest, latest verified, RTO and RPO, problems. Write the report and metrics."""
    from flows.watch import watch

    status_report = run_flow(watch, call.installation_config.id, alarm)
    found = status_report.status
    told = {
        "installation": found.installation, "backups": found.backups, "newest": found.newest.file if found.newest else None,
        "newest_verified": found.newest_verified.file if found.newest_verified else None, "rto_seconds": found.rto_seconds,
        "rpo_seconds": found.rpo_seconds, "free_bytes": found.free_bytes, "report": str(status_report.page) if status_report.page else None,
        "problems": _problems_told(found), "notes": list(found.notes),
    }  # fmt: skip
    call.answer(told, str(found))
    if found.problems:
        raise typer.Exit(1)


@app.command("recover")
@command
def recover(call: Call) -> None:
    """Finish what killed runs left: start what they had stopped, complete or undo what they had begun. Safe to run at any time."""
    from tasks.oversight.stack_health import look_at_stack
    from tasks.recovery.recover import recover as settle
    from tasks.run.context import known_configs, notify_recovered

    done = settle(call.config.directory if call.config else None)
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


@app.command("accept-repository")
@command
def accept_repository(call: Call) -> None:
    """Go on with the repository as it is now, after it was moved, emptied or replaced on purpose."""
    from tasks.adapters.archive.repository_marker import accept_repository as accept

    place = call.installation_config.repository
    accept(place)
    call.answer({"repository": str(place)}, f"Backups go to {place} as it is now.")


@app.command("adopt")
@command
def adopt(
    call: Call,
    backup: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BACKUP]...", help="Names; left out: all unsigned ones from before the first signed backup."
        ),
    ] = None,
    dismiss: Annotated[
        bool,
        typer.Option(
            "--dismiss", help="The other way round: leave a backup that a wrong clock has dated out of account."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Sign archives from before archives were signed, after a full check; or confirm the date of one that a clock made doubtful."""
    from tasks.oversight import adopting
    from tasks.run.context import locked_config

    config = call.installation_config
    if dismiss and not backup:
        raise UsageError("--dismiss needs the names of backups", hint="mailarchiver-backup status")
    names = backup or adopting.adoptable(config)
    if names:
        confirmed(
            f"{'Dismiss' if dismiss else 'Adopt'} as backups of {config.id}: {', '.join(names)}", config.id, yes=yes
        )
    with locked_config(config.id, "adopt") as locked:
        done = adopting.dismiss(locked, names) if dismiss else adopting.adopt(locked, names, now=datetime.now(UTC))
    told = [{"backup": each.backup, "done": each.what, "refused": each.refused} for each in done]
    call.answer(told, "\n".join(f"{each.backup}: {each.what}" for each in done) or "nothing is to be adopted")
    if any(each.refused for each in done):
        raise typer.Exit(1)


@app.command("doctor")
@command
def doctor(call: Call) -> None:
    """Show what can be seen of an installation, and what may be wrong with it."""
    from deployments.doctor import examine

    value, text, healthy = examine(call.installation_config)
    call.answer(value, text)
    if not healthy:
        raise typer.Exit(1)


@app.command("init")
def init(
    settings: Annotated[
        Path | None, typer.Option(help="The settings file to write; /etc/mailarchiver-backup/settings.yaml for root.")
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option("--repository", "-r", help="Where archives go; each of several stacks gets a directory in it."),
    ] = None,
    directory: Annotated[
        list[Path] | None,
        typer.Option("--directory", "-d", help="A stack's directory, instead of looking for all; may be repeated."),
    ] = None,
    units: Annotated[
        Path | None, typer.Option(help="Where systemd units go; /etc/systemd/system for root, where it is there.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write files anew that stand; a copy of each is kept.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else there.")
    ] = False,
) -> None:
    """Write a commented settings file for the stacks of this machine, and systemd units with its own paths."""
    from deployments.init import default_settings, default_units
    from deployments.init import init as run

    with answering(as_json):
        refuse_bad_input({"settings": settings, "repository": repository, "units": units})
        for each in directory or ():
            refuse_bad_input({"directory": each})
        place = (settings or default_settings()).absolute()
        begun = run(
            place,
            (units or default_units(place)).absolute(),
            repository.absolute() if repository else None,
            [each.absolute() for each in directory or ()],
            force=force,
        )
        told = {
            "settings": str(begun.settings), "units": str(begun.units), "written": [str(each) for each in begun.written],
            "left": [str(each) for each in begun.left], "kept": [str(each) for each in begun.kept],
            "installations": list(begun.installations), "notes": list(begun.notes),
        }  # fmt: skip
        sys.stdout.write((json.dumps(told) if as_json else plain(str(begun))) + "\n")


@app.command("serve")
def serve(
    settings: Annotated[Path | None, typer.Option(help="The settings file (or MAILARCHIVER_BACKUP_SETTINGS).")] = None,
    host: Annotated[
        str, typer.Option(help="The address of server and UI; only this machine by default.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of server and UI.")] = 4200,
    show_password: Annotated[
        bool, typer.Option("--show-password", help="Show USER:PASSWORD of server and UI, and exit.")
    ] = False,
) -> None:
    """Run Prefect's server, all deployments and a worker, for a small host; ends when it is told to."""
    from deployments.password import auth_string
    from deployments.serve import serve as run
    from tasks.adapters.host.settings_file import load_settings, settings_path

    with answering(as_json=False):
        if show_password:
            print(auth_string())
            return
        refuse_bad_input({"settings": settings, "host": host})
        place = settings_path(settings)
        if place is None:
            raise UsageError(
                "there is no settings file", hint="`mailarchiver-backup init` writes one; or give --settings FILE"
            )
        run(load_settings(place), place.resolve(), host=host, port=port)


@app.command("deploy")
def deploy(
    settings: Annotated[Path | None, typer.Option(help="The settings file (or MAILARCHIVER_BACKUP_SETTINGS).")] = None,
) -> None:
    """Bring the deployments, one schedule for each installation, to the Prefect server at PREFECT_API_URL."""
    from deployments.password import client_environment
    from deployments.serve import deploy as run
    from tasks.adapters.host.settings_file import load_settings, settings_path

    with answering(as_json=False):
        refuse_bad_input({"settings": settings})
        place = settings_path(settings)
        if place is None:
            raise UsageError(
                "there is no settings file", hint="`mailarchiver-backup init` writes one; or give --settings FILE"
            )
        run(load_settings(place), {"MAILARCHIVER_BACKUP_SETTINGS": str(place.resolve()), **client_environment()})


def _answer_backup(call: Call, record: Record) -> None:
    call.answer(_backup_told(call, record), backup_report(record))


def _backup_told(call: Call, record: Record) -> dict[str, Any]:
    manifest = record.manifest
    return {
        "archive": str(call.installation_config.repository / record.file), "name": manifest.name, "method": manifest.method, "format": manifest.format,
        "bytes": record.bytes, "sha256": record.sha256, "seconds": record.seconds, "downtime_seconds": manifest.downtime_seconds,
        "warnings": manifest.warnings,
    }  # fmt: skip


def _problems_told(status: Status) -> list[dict[str, str]]:
    return [{"kind": each.kind, "text": each.text} for each in status.problems]


def _answer_restore(call: Call, restored: Any) -> None:
    kept = restored.kept.database if restored.kept else None
    told = {
        "restored": restored.backup, "rollback": kept, "downtime_seconds": restored.downtime_seconds, "seconds": restored.seconds,
        "quarantined": restored.quarantined > 0, "quarantined_accounts": restored.quarantined, "configuration": list(restored.configuration),
        "left_out": list(restored.left_out), "notes": list(restored.notes),
    }  # fmt: skip
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
    call.answer(told, "\n".join(line for line in lines if line))


def main() -> None:
    """Run the program."""
    catch_signals()
    os.umask(0o077)  # of what libraries make too: Prefect's home, notification caches
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file's name need not be text in this terminal's encoding.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UsageError as error:
        raise SystemExit(plain(f"error: {error}")) from None
