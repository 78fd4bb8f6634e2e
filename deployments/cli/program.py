"""`mailarchiver-backup`: the flows in-process, without a Prefect server."""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from deployments.cli import (
    backing_up,
    copying,
    guests,
    machine,
    operating,
    recovering,
    recovery_kit,
    repository,
    restoring,
    upgrading,
)
from deployments.cli.options import catch_signals
from tasks.core.errors import UsageError
from tasks.core.plain_text import plain
from tasks.prefect_objects import do_without_prefect

app = typer.Typer(
    name="mailarchiver-backup", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
)  # fmt: skip
for module in (recovering, restoring, backing_up, repository, copying, operating, upgrading, recovery_kit):
    app.add_typer(module.commands)
backing_up.backup.add_typer(guests.backups)
backing_up.backup.add_typer(machine.backups)
restoring.restore.add_typer(guests.restores)
restoring.restore.add_typer(machine.restores)


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


def main() -> None:
    """Run the program."""
    do_without_prefect()
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
