"""The command that brings PostgreSQL to another major version, or the application to another one."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.options import Call, IdentityFile, Yes, command, confirmed, identity_used, run_flow
from tasks.core.errors import UsageError

commands = typer.Typer()


@commands.command("upgrade", rich_help_panel="Setting up and looking after")
@command
def upgrade(
    call: Call,
    to: Annotated[
        str | None, typer.Option("--to", metavar="IMAGE", help="The new image of PostgreSQL: postgres:17-alpine")
    ] = None,
    application: Annotated[
        str | None,
        typer.Option("--application", metavar="IMAGE", help="The new image of Mail Archiver: s1t5/mailarchiver:2609.1"),
    ] = None,
    rehearse_only: Annotated[
        bool, typer.Option("--rehearse-only", help="Rehearse on staging, show the plan, and change nothing.")
    ] = False,
    yes: Yes = False,
    identity: IdentityFile = None,
) -> None:
    """Upgrade PostgreSQL (--to) or Mail Archiver (--application), reversibly: rehearsed on staging, kept until `commit`."""
    if (to is None) == (application is None):
        raise UsageError(
            "upgrade takes either --to IMAGE (PostgreSQL) or --application IMAGE (Mail Archiver)",
            hint="one at a time: each has its own rehearsal and way back",
        )
    with identity_used(identity):
        if application is not None:
            _upgrade_application(call, application, rehearse_only=rehearse_only, yes=yes)
        else:
            _upgrade(call, str(to), rehearse_only=rehearse_only, yes=yes)


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


def _upgrade_application(call: Call, image: str, *, rehearse_only: bool, yes: bool) -> None:
    from flows.application_upgrade import application_upgrade, rehearse_application_upgrade
    from tasks.upgrade.report import application_upgrade_report

    config = call.installation_config
    if rehearse_only or not yes:
        plan = rehearse_application_upgrade(config.id, image)
        if rehearse_only:
            found = plan.rehearsal
            told = {
                "rehearsed": found.backup, "image": image, "digest": plan.ahead.new.digest, "image_id": found.image_id,
                "downtime_seconds": round(found.downtime_seconds, 3), "schema": [found.schema_before, found.schema_after],
                "mails": found.mails, "configuration": dict(plan.configuration), "notes": list(plan.ahead.notes),
            }  # fmt: skip
            call.answer(told, str(plan))
            return
        question = f"{plan}\nThe application of {config.directory} will be upgraded, and its compose file changed."
    else:
        question = ""
    done = run_flow(application_upgrade, config.id, image, confirmed(question, config.id, yes=yes))
    told = {
        "upgraded": done.to_image, "from": done.from_image, "digest": done.digest, "backup": done.backup, "rollback": done.kept,
        "schema": [done.schema_before, done.schema_after], "mails": done.mails, "files": list(done.files),
        "downtime_seconds": done.downtime_seconds, "expected_seconds": done.expected_seconds, "seconds": done.seconds,
        "notes": list(done.notes),
    }  # fmt: skip
    call.answer(told, application_upgrade_report(done))
