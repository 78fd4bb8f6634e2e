"""The command that copies backups away from this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.options import Call, command, run_flow
from tasks.core.report.copies import copies_report

commands = typer.Typer()


@commands.command("copy", rich_help_panel="Backups")
@command
def copy(
    call: Call,
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="A target's name in the settings; left out: all.")
    ] = None,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Go on with the target as it is now: it was emptied or replaced on purpose."),
    ] = False,
) -> None:
    """Send each target the backups it lacks, apply its retention, read back what is due."""
    from flows.copy_backups import copy_backups
    from tasks.oversight.copies import CopiesFailed

    config = call.installation_config
    try:
        done = run_flow(copy_backups, config.id, target or "", accept)
    except CopiesFailed as failed:
        call.answer(
            {"targets": [each.report.told for each in failed.runs]},
            copies_report(config.id, [each.report for each in failed.runs]),
        )
        raise typer.Exit(failed.exit_code) from None
    reports = [each.report for each in done]
    call.answer({"targets": [each.told for each in reports]}, copies_report(config.id, reports))
