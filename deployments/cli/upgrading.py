"""The command that brings PostgreSQL to another major version."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.options import Call, IdentityFile, Yes, command, confirmed, identity_used, run_flow

commands = typer.Typer()


@commands.command("upgrade", rich_help_panel="Setting up and looking after")
@command
def upgrade(
    call: Call,
    to: Annotated[str, typer.Option("--to", metavar="IMAGE", help="The new image: postgres:17-alpine")],
    rehearse_only: Annotated[
        bool, typer.Option("--rehearse-only", help="Rehearse on staging, show the plan, and change nothing.")
    ] = False,
    yes: Yes = False,
    identity: IdentityFile = None,
) -> None:
    """Upgrade PostgreSQL to another major version, reversibly: rehearsed on staging, proven equal, kept until `commit`."""
    with identity_used(identity):
        _upgrade(call, to, rehearse_only=rehearse_only, yes=yes)


def _upgrade(call: Call, to: str, *, rehearse_only: bool, yes: bool) -> None:
    from flows.postgres_upgrade import postgres_upgrade, rehearse_upgrade
    from tasks.upgrade.report import upgrade_report

    config = call.installation_config
    if rehearse_only or not yes:
        plan = rehearse_upgrade(config.id, to)
        if rehearse_only:
            rehearsal = plan.rehearsal
            told = {
                "rehearsed": rehearsal.backup, "image": to, "downtime_seconds": round(rehearsal.downtime_seconds, 3),
                "rows": rehearsal.rows, "configuration": dict(plan.configuration), "notes": list(plan.ahead.notes),
            }  # fmt: skip
            call.answer(told, str(plan))
            return
        question = f"{plan}\nThe data and the compose file of {config.directory} will be exchanged."
    else:
        question = ""
    done = run_flow(postgres_upgrade, config.id, to, confirmed(question, config.id, yes=yes))
    told = {
        "upgraded": done.to_image, "from": done.from_image, "backup": done.backup, "rollback": done.kept,
        "files": list(done.files), "downtime_seconds": done.downtime_seconds, "expected_seconds": done.expected_seconds,
        "seconds": done.seconds, "notes": list(done.notes),
    }  # fmt: skip
    call.answer(told, upgrade_report(done))
