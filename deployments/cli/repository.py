"""Commands for the backups that are there: list, check, verify, prune, adopt."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

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
from tasks.adapters.archive.repository import Backup
from tasks.core.errors import UsageError
from tasks.core.report.texts import retention_report, verification_report
from tasks.core.units import size_text

commands = typer.Typer()


@commands.command("list", rich_help_panel="Backups")
@command
def list_backups(call: Call, identity: IdentityFile = None, source: FromTarget = None) -> None:
    """List the backups in the repository (or at a target), newest first; with a key, which encrypted ones it opens."""
    with reading_from(call, source) as there:
        _list_backups(there, identity)


def _list_backups(call: Call, identity: Path | None) -> None:
    from tasks.adapters.archive.opening import opens
    from tasks.adapters.archive.ownership import judge_backups
    from tasks.adapters.archive.repository import list_backups as listed
    from tasks.adapters.archive.repository_marker import require_repository
    from tasks.run.own_backups import trust_of

    place = call.installation_config.archives
    require_repository(place)
    found = listed(place)
    whose = judge_backups(trust_of(call.installation_config), found)
    with identity_used(identity):
        opened = {each.name: opens(each.path) for each in found if each.is_encrypted} if identity else {}
    told = [
        {
            "name": each.name, "method": each.method, "format": each.format, "bytes": each.bytes,
            "created": each.created.isoformat() if each.created else None, "verified": each.verified and whose[each.name].counts, "archive": str(each.path),
            "of": each.subject or None,
            "authenticity": str(whose[each.name]), "authenticity_reason": whose[each.name].reason,
            "encrypted": each.is_encrypted, "opens": opened.get(each.name), "parents": list(_parents(each)),
        }
        for each in found
    ]  # fmt: skip
    lines = [
        f"{each.name:40} {each.method:9} {size_text(each.bytes):>10}  "
        f"{'verified' if each.verified and whose[each.name].counts else 'not verified':12}  {whose[each.name]}"
        f"{', encrypted' if each.is_encrypted else ''}{f', of {each.subject}' if each.subject else ''}{_builds_on(each)}{_opened_word(opened.get(each.name))}"
        for each in found
    ]
    call.answer(told, "\n".join(lines) or f"no backups in {place}")


def _parents(backup: Backup) -> tuple[str, ...]:
    return tuple(each.name for each in backup.record.manifest.parents) if backup.record else ()


def _builds_on(backup: Backup) -> str:
    parents = _parents(backup)
    return f", incremental: builds on {len(parents)}, the last {parents[-1]}" if parents else ""


def _opened_word(opens: bool | None) -> str:
    return "" if opens is None else ", opens with this key" if opens else ", does not open with this key"


@commands.command("check", rich_help_panel="Backups")
@command
def check(
    call: Call,
    archive: Annotated[str, typer.Argument(help="An archive's path, a backup's name, or `latest`.")],
    identity: IdentityFile = None,
    source: FromTarget = None,
) -> None:
    """Read an archive from its first byte to its last and compare it with its manifest; an encrypted one without a key, with its record."""
    with reading_from(call, source, archive) as there:
        _check(there, archive, identity)


@commands.command("export", rich_help_panel="Backups")
@command
def export(
    call: Call,
    to: Annotated[Path, typer.Option("--to", help="The directory that gets NAME.tar.gz; not the repository.")],
    backup: BackupName = "latest",
    format: Annotated[
        Literal["guide"],
        typer.Option(help="guide: .tar.gz with SQL or a data directory, for the guide's own commands."),
    ] = "guide",
    identity: IdentityFile = None,
    source: FromTarget = None,
) -> None:
    """Write any backup (a chain, an encrypted one) as one plain archive that needs nothing of this program."""
    from tasks.restore.check_archive import find_archive
    from tasks.rewrite.export import export_backup
    from tasks.run.installations import read_installation
    from tasks.run.own_backups import choose_backup

    with reading_from(call, source, backup) as there, identity_used(identity):
        config = there.installation_config
        found = find_archive(config.archives, choose_backup(config, backup))
        done = export_backup(config, read_installation(config), found, to)
    told = {
        "archive": str(done.path),
        "name": done.backup,
        "format": format,
        "bytes": done.bytes,
        "sha256": done.sha256,
    }
    call.answer(
        told,
        f"{done.path} holds {done.backup}, {size_text(done.bytes)}, in clear text: keep it where only you can read it.",
    )


def _check(call: Call, archive: str, identity: Path | None) -> None:
    from tasks.adapters.archive.open_keys import keys_for
    from tasks.adapters.archive.ownership import authenticity_of_checked
    from tasks.core.archive.authenticity import Trust
    from tasks.core.archive.names import is_sealed
    from tasks.restore.check_archive import check_backup, wanted_backup
    from tasks.run.own_backups import choose_backup, trust_of

    config = call.config
    name = choose_backup(config, archive) if config else archive
    repository = config.archives if config else Path.cwd()
    path = wanted_backup(repository, name)
    with identity_used(identity):
        if is_sealed(path.name) and not keys_for(path):
            _check_sealed(call, path)
            return
        found = check_backup(repository, name, of_system=True)
    whose = authenticity_of_checked(trust_of(config) if config else Trust(""), found)
    told = {
        "archive": str(found.path), "name": found.name, "kind": found.kind, "format": found.format, "bytes": found.bytes,
        "sha256": found.sha256, "members": len(found.members), "encrypted": is_sealed(path.name), "content_read": True, "legacy": found.manifest is None, "authenticity": str(whose) if config else None,
        "authenticity_reason": whose.reason,
    }  # fmt: skip
    note = "" if found.manifest else " It is a legacy archive: no manifest says what it must hold."
    call.answer(
        told,
        f"{found.path.name} is whole: {len(found.members)} files, {size_text(found.bytes)}, SHA-256 {found.sha256}.{note}\n"
        + (f"Whose it is: {whose}{f' ({whose.reason})' if whose.reason else ''}." if config else ""),
    )


def _check_sealed(call: Call, path: Path) -> None:
    from tasks.adapters.archive.chain import check_sealed_parents
    from tasks.adapters.archive.opening import check_sealed
    from tasks.core.archive.authenticity import Trust, authenticity_of
    from tasks.run.own_backups import trust_of

    found = check_sealed(path)
    check_sealed_parents(found.record, path)
    whose = authenticity_of(
        trust_of(call.config) if call.config else Trust(""),
        found.record,
        name=found.record.manifest.name,
        file_bytes=found.bytes,
    )
    told = {
        "archive": str(path), "name": found.record.manifest.name, "bytes": found.bytes, "sha256": found.sha256, "encrypted": True,
        "content_read": False, "authenticity": str(whose) if call.config else None, "authenticity_reason": whose.reason,
    }  # fmt: skip
    call.answer(
        told,
        f"{path.name} is sealed: intact, content not read. It is the file that its record describes: {size_text(found.bytes)}, SHA-256 {found.sha256}.\n"
        "To have its content read too, give the key: --identity FILE.\n"
        + (f"Whose it is: {whose}{f' ({whose.reason})' if whose.reason else ''}." if call.config else ""),
    )


@commands.command("verify", rich_help_panel="Backups")
@command
def verify(
    call: Call,
    backup: BackupName = "latest",
    identity: IdentityFile = None,
    with_recovery_key: Annotated[
        bool,
        typer.Option(
            "--with-recovery-key",
            help="The yearly drill: open an encrypted backup with the key of --identity alone, and note that it does.",
        ),
    ] = False,
    source: FromTarget = None,
) -> None:
    """Prove a backup by restoring it on an isolated staging stack."""
    from flows.restore_verification import restore_verification
    from tasks.verification.verify import NotProven

    with reading_from(call, source, backup) as there, identity_used(identity):
        try:
            done = run_flow(restore_verification, there.installation_config.id, backup, with_recovery_key)
        except NotProven as refuted:  # its verdict is brought to the target all the same
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
        "opened_with",
    )
    told = {"archive": str(done.path), **found.model_dump(mode="json", include=set(wanted))}
    call.answer(told, verification_report(done.archive, found))
    if not done.holds:
        raise typer.Exit(1)


@commands.command("verify-guest", rich_help_panel="Backups")
@command
def verify_guest(
    call: Call,
    guest: Annotated[
        int | None, typer.Argument(metavar="[GUEST]", help="A guest's id; left out: each of the settings.")
    ] = None,
) -> None:
    """Prove the newest backup of guests at Proxmox by restoring it under a free id, without a network; it is removed again."""
    from flows.proxmox_restore_verification import proxmox_restore_verification
    from tasks.core.report.guests import proofs_report
    from tasks.oversight.guest_proofs import GuestsNotProven

    config = call.installation_config
    try:
        proofs = run_flow(proxmox_restore_verification, config.id, guest)
        code = 0
    except GuestsNotProven as refuted:
        proofs, code = refuted.proofs, refuted.exit_code
    told = {"guests": [each.model_dump(mode="json") for each in proofs]}
    call.answer(told, proofs_report(config.id, proofs))
    if code:
        raise typer.Exit(code)


@commands.command("prune", rich_help_panel="Backups")
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


@commands.command("adopt", rich_help_panel="Backups")
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
    identity: IdentityFile = None,
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
    with identity_used(identity), locked_config(config.id, "adopt") as locked:
        done = adopting.dismiss(locked, names) if dismiss else adopting.adopt(locked, names, now=datetime.now(UTC))
    told = [{"backup": each.backup, "done": each.what, "refused": each.refused} for each in done]
    call.answer(told, "\n".join(f"{each.backup}: {each.what}" for each in done) or "nothing is to be adopted")
    if any(each.refused for each in done):
        raise typer.Exit(1)


@commands.command("accept-repository", rich_help_panel="Backups")
@command
def accept_repository(call: Call) -> None:
    """Go on with the repository as it is now, after it was moved, emptied or replaced on purpose."""
    from tasks.adapters.archive.repository_marker import accept_repository as accept

    place = call.installation_config.repository
    accept(place)
    call.answer({"repository": str(place)}, f"Backups go to {place} as it is now.")
