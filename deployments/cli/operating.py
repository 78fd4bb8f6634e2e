"""Commands that set the program up and run it: init, doctor, status, serve, server, worker, deploy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.options import (
    Call,
    answering,
    command,
    problems_told,
    refuse_bad_input,
    run_flow,
)
from tasks.core.errors import UsageError
from tasks.core.plain_text import plain

commands = typer.Typer()


@commands.command("status", rich_help_panel="Setting up and looking after")
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
        "problems": problems_told(found), "notes": list(found.notes), "mail_on_servers": str(found.mail),
    }  # fmt: skip
    call.answer(told, str(found))
    if found.problems:
        raise typer.Exit(1)


@commands.command("doctor", rich_help_panel="Setting up and looking after")
@command
def doctor(call: Call) -> None:
    """Show what can be seen of an installation, what may be wrong with it, and how weak it would be on a bad day.

    Exit codes, for monitoring too: 0 all is well; 1 something stands in the way of backups, or a weakness is there that
    the settings do not accept (accept_risks); 2 wrong usage or settings.
    """
    from deployments.doctor import examine

    value, text, healthy = examine(call.installation_config)
    call.answer(value, text)
    if not healthy:
        raise typer.Exit(1)


@commands.command("wal-summaries", rich_help_panel="Setting up and looking after")
@command
def wal_summaries(
    call: Call,
    off: Annotated[
        bool, typer.Option("--off", help="Take back what incremental backups have set; the next one is a full one.")
    ] = False,
) -> None:
    """Show whether the server notes what changes, for incremental backups; or have it stop."""
    from tasks.oversight.incremental import forget_summaries, incremental_seen
    from tasks.run.installations import discover

    config = call.installation_config
    found = discover(config.directory, installation_id=config.id, project=config.project)
    changed = forget_summaries(found) if off else False
    seen = incremental_seen(config, found)
    told = {
        "kind": seen.kind,
        "summarizes": seen.summarizes,
        "tokens": seen.tokens,
        "changed": changed,
        "why_unknown": seen.why_unknown or None,
    }
    call.answer(told, f"Incremental backups: {seen}")


@commands.command("init", rich_help_panel="Setting up and looking after")
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


@commands.command("serve", rich_help_panel="Setting up and looking after")
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
            print(auth_string(settings_path(settings)))
            return
        refuse_bad_input({"host": host})
        place = _settings_place(settings)
        run(load_settings(place), place.resolve(), host=host, port=port)


@commands.command("server", rich_help_panel="Setting up and looking after")
def server(
    host: Annotated[str, typer.Option(help="The address to listen on; only this machine by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of server and UI.")] = 4200,
) -> None:
    """Run Prefect's server alone, for systemd and containers; wants PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD."""
    from deployments.password import require_auth_string
    from deployments.serve import OWN_IMPORTS, server_command
    from tasks.adapters.host.processes import become

    with answering(as_json=False):
        refuse_bad_input({"host": host})
        require_auth_string()
        become(server_command(host, port), OWN_IMPORTS)


@commands.command("worker", rich_help_panel="Setting up and looking after")
def worker(
    settings: Annotated[Path | None, typer.Option(help="The settings file (or MAILARCHIVER_BACKUP_SETTINGS).")] = None,
) -> None:
    """Run the worker alone, for the Prefect server at PREFECT_API_URL; it starts the flows of this program alone."""
    from deployments.password import client_environment
    from deployments.serve import OWN_IMPORTS, WORKER_COMMAND
    from tasks.adapters.host.processes import become

    with answering(as_json=False):
        place = _settings_place(settings)
        environment = {"MAILARCHIVER_BACKUP_SETTINGS": str(place.resolve()), **client_environment(place)}
        become(WORKER_COMMAND, {**environment, **OWN_IMPORTS})


@commands.command("deploy", rich_help_panel="Setting up and looking after")
def deploy(
    settings: Annotated[Path | None, typer.Option(help="The settings file (or MAILARCHIVER_BACKUP_SETTINGS).")] = None,
) -> None:
    """Bring the deployments, one schedule for each installation, to the Prefect server at PREFECT_API_URL."""
    from deployments.password import client_environment
    from deployments.serve import deploy as run
    from tasks.adapters.host.settings_file import load_settings

    with answering(as_json=False):
        place = _settings_place(settings)
        run(load_settings(place), {"MAILARCHIVER_BACKUP_SETTINGS": str(place.resolve()), **client_environment(place)})


def _settings_place(settings: Path | None) -> Path:
    from tasks.adapters.host.settings_file import settings_path

    refuse_bad_input({"settings": settings})
    place = settings_path(settings)
    if place is None:
        raise UsageError(
            "there is no settings file", hint="`mailarchiver-backup init` writes one; or give --settings FILE"
        )
    return place
