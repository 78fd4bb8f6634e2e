"""Commands that prepare the bad day: a recovery key, and the sheet that tells how to use it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.options import Call, IdentityFile, answering, command, refuse_bad_input
from tasks.core.errors import UsageError
from tasks.core.plain_text import plain

commands = typer.Typer()


@commands.command("keygen", rich_help_panel="Setting up and looking after")
def keygen(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file (0600) for the secret key, instead of showing it once."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else there.")
    ] = False,
) -> None:
    """Make a recovery key for encrypted archives: the secret half is shown once and kept nowhere, the public one goes into the settings."""
    from tasks.adapters.archive.new_identity import new_identity, write_identity

    with answering(as_json):
        refuse_bad_input({"output": output})
        made = new_identity()
        if output is not None:
            write_identity(output.absolute(), made, datetime.now(UTC))
        told = {
            "recipient": made.recipient,
            "identity": None if output else made.identity,
            "file": str(output.absolute()) if output else None,
        }
        where = f"It is in {output.absolute()}: take it off this machine." if output else f"\n  {made.identity}\n"
        text = (
            f"The secret key opens every backup; it is not kept here. Print it (`recovery-sheet`), and keep it away from this machine.\n{where}\n"
            f"The public key goes into the settings:\n\n  encryption:\n    recipients: [{json.dumps(made.recipient)}]\n"
        )
        sys.stdout.write((json.dumps(told) if as_json else plain(text)) + "\n")


@commands.command("recovery-sheet", rich_help_panel="Setting up and looking after")
@command
def recovery_sheet(
    call: Call,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new HTML file (0600); recovery-sheet-ID.html if left out.")
    ] = None,
    identity: IdentityFile = None,
    with_signing_key: Annotated[
        bool, typer.Option("--with-signing-key", help="Put the private signing key on the sheet, too.")
    ] = False,
) -> None:
    """Write a page to print: what is backed up, where, the key as a QR code (with --identity), and the commands that bring it back by hand."""
    from tasks.adapters.archive.identity_file import read_identities
    from tasks.adapters.host.files import create_whole
    from tasks.oversight.recovery_sheet import recovery_sheet as sheet

    config = call.installation_config
    place = (output or Path(f"recovery-sheet-{config.id}.html")).absolute()
    identities = read_identities(identity) if identity is not None else ()
    page = sheet(config, now=datetime.now(UTC), identities=identities, with_signing_key=with_signing_key)
    if not create_whole(place, page.encode()):
        raise UsageError(f"{place} exists already", hint="remove it, or name another file with --output")
    secret = identity is not None or with_signing_key
    call.answer(
        {"sheet": str(place), "secret": secret},
        f"Print {place}"
        + (", and then delete it: a secret key stands on it." if secret else "; write the recovery key on it by hand.")
        + "\nKeep it where the backups are not, and try it: `verify --with-recovery-key` each year.",
    )
