"""Look at an installation and say what is seen, what may be wrong with it, and how its posture is; touch nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tasks.adapters.archive.age import encrypt
from tasks.adapters.archive.identity import Identity, read_identity
from tasks.adapters.copies.rclone_program import config_secrets, rclone_program
from tasks.adapters.host.files import free_space
from tasks.adapters.host.locks import lock_holder
from tasks.adapters.host.memory_place import memory_obstacle
from tasks.adapters.stack.diagnosis import Problem, problems
from tasks.core.archive.recipients import short_recipient
from tasks.core.copies.judge import SeenCopies, wipeable
from tasks.core.copies.state import is_locked, newest
from tasks.core.errors import BackupError
from tasks.core.report.posture import posture_lines, posture_told
from tasks.core.stack.installation import Installation
from tasks.core.units import size_text
from tasks.guests.check import check_guests
from tasks.machine.check import check_host
from tasks.oversight.incremental import incremental_seen
from tasks.oversight.posture import posture_seen
from tasks.oversight.status import copies_seen
from tasks.proxmox.check import check_proxmox
from tasks.run.config import InstallationConfig
from tasks.run.drills import drill_state
from tasks.run.encryption import keeps_verification_key, recipients_of
from tasks.run.installations import discover


def examine(config: InstallationConfig) -> tuple[dict[str, Any], str, bool]:
    """Return what is seen as JSON and as text, and whether all is well: nothing stands in a backup's way, and no weakness is left unaccepted."""
    found = discover(config.directory, installation_id=config.id, project=config.project)
    copies, now = copies_seen(config), datetime.now(UTC)
    guests, own_guests = check_proxmox(config), check_guests(config)
    wrong = [*problems(found), *_problems_of_encryption(config), *_problems_of_copies(config, copies)]
    wrong += [Problem("error", what, hint) for what, hint in (*guests.obstacles, *own_guests.obstacles)]
    wrong += [Problem("warning", what, hint) for what, hint in guests.notes]
    around = check_host(config, found)
    wrong += [Problem("error", what, hint) for what, hint in around.obstacles]
    wrong += [Problem("warning", what, hint) for what, hint in around.notes]
    posture, accepted = posture_seen(config, found, now=now), config.settings.accept_risks
    weak = posture_told(posture, accepted)
    told_wrong: list[dict[str, Any]] = [
        *({"severity": each.severity, "what": each.what, "hint": each.hint} for each in wrong),
        *(each for each in weak if not each["accepted"]),
    ]
    incremental = incremental_seen(config, found)
    free_bytes, _ = free_space(config.repository)
    holder = lock_holder(config.directory)
    identity = read_identity(config.id, config.directory)
    value = {
        "installation": _facts(found),
        "repository": {"path": str(config.repository), "free_bytes": free_bytes},
        "signing_key": {"public": identity.public or None, "file": str(identity.key_file)},
        "encryption": _encryption(config),
        "copies": [_copy_facts(each, now) for each in copies],
        "incremental": str(incremental),
        "proxmox": list(guests.told),
        "guests": list(own_guests.told),
        "host": around.told,
        "busy": str(holder) if holder else None,
        "mail_on_servers": str(posture.mail),
        "problems": told_wrong,
        "accepted": [each for each in weak if each["accepted"]],
        "not_known": list(posture.unseen),
    }
    healthy = not any(each["severity"] in ("error", "weakness") for each in told_wrong)
    told = [
        f"Incremental    {incremental}",
        *(_copy_line(each, now) for each in copies),
        *(f"Proxmox        {each}" for each in guests.lines),
        *(f"Guest          {each}" for each in own_guests.lines),
        *(f"Host           {each}" for each in around.lines),
        f"Mail           {posture.mail}",
    ]
    text = _text(found, config, free_bytes, wrong, identity, told, posture_lines(posture, accepted))
    return value, text, healthy


def _problems_of_encryption(config: InstallationConfig) -> list[Problem]:
    """Tell what would end every backup before it begins: recipients that cannot be read or encrypted to."""
    try:
        if recipients := recipients_of(config):
            encrypt(b"", recipients)
    except BackupError as error:
        return [Problem("error", error.message, error.hint)]
    return []


def _problems_of_copies(config: InstallationConfig, copies: Sequence[SeenCopies]) -> list[Problem]:
    """Tell what stands in the way of copies."""
    wrong = []
    try:
        if copies:
            rclone_program()
        for each in copies:
            config_secrets(each.target.remote, config.settings.rclone_config)
    except BackupError as error:
        wrong.append(Problem("warning", error.message, error.hint))
    return wrong


def _copy_facts(seen: SeenCopies, now: datetime) -> dict[str, Any]:
    last = newest(seen.state.copies)
    locks = [
        each.locked_until
        for each in seen.state.copies.values()
        if each.counts and is_locked(each, now) and each.locked_until
    ]
    return {
        "target": seen.target.name, "copies": seen.status().copies, "newest": last.created_at.isoformat() if last else None,
        "off_site": seen.target.off_site, "medium": seen.target.kept_on, "locked": len(locks),
        "locked_until": max(locks).isoformat() if locks else None, "refused_removal": seen.state.refused or None,
        "could_wipe": wipeable(seen, now), "error": seen.state.error or None,
    }  # fmt: skip


def _copy_line(seen: SeenCopies, now: datetime) -> str:
    facts = _copy_facts(seen, now)
    if facts["locked"]:
        lock = f"{facts['locked']} locked, up to {facts['locked_until'][:10]}"
    else:
        lock = "it refused a removal" if facts["refused_removal"] else "not locked"
    where = f"{'off-site' if facts['off_site'] else 'on-site'}, {facts['medium']}"
    return f"Copies         target {facts['target']} ({where}): {facts['copies']} there, {lock}"


def _encryption(config: InstallationConfig) -> dict[str, Any] | None:
    """Tell to whom archives are encrypted, and whether they can be proven here; None where they are not."""
    if config.settings.encryption is None:
        return None
    drill = drill_state(config.id)
    try:
        recipients = list(recipients_of(config))
    except BackupError:  # told among the problems
        recipients = []
    return {
        "recipients": recipients,
        "verifiable_here": keeps_verification_key(config) and not memory_obstacle(),
        "obstacle": memory_obstacle() or None,
        "drilled_at": drill.drilled_at.isoformat() if drill and drill.drilled_at else None,
    }


def _encryption_text(config: InstallationConfig) -> list[str]:
    told = _encryption(config)
    if told is None:
        return ["Encryption     none: anyone who reads an archive reads the mail; set encryption.recipients"]
    lines = [
        f"Encryption     to {', '.join(short_recipient(each) for each in told['recipients']) or 'nobody yet: see below'}"
    ]
    if not told["verifiable_here"]:
        lines.append(f"  Archives are not verifiable here: {told['obstacle'] or 'the settings keep no key for that'}")
    lines.append(f"  Recovery key last drilled: {told['drilled_at'] or 'never'}")
    return lines


def _facts(found: Installation) -> dict[str, Any]:
    return {
        "id": found.id,
        "directory": str(found.directory),
        "project": found.project,
        "application": {
            "service": found.application.name,
            "image": found.application.image,
            "state": found.application.state,
        },
        "postgres": {"service": found.postgres.name, "image": found.postgres.image, "state": found.postgres.state},
        "database": {"name": found.database.name, "user": found.database.user, "superuser": found.database.superuser},
        "data": {"source": found.data_mount.source, "pgdata": found.pgdata},
        "keys": found.keys_mount.source if found.keys_mount else None,
        "configuration": [file.archive_name for file in found.config_files],
    }


def _text(
    found: Installation,
    config: InstallationConfig,
    free_bytes: int,
    wrong: list[Problem],
    identity: Identity,
    told: Sequence[str],
    posture: Sequence[str],
) -> str:
    lines = [
        f"Installation   {found.id} in {found.directory} (compose project {found.project})",
        f"Application    {found.application.name}: {found.application.image}, {found.application.state}",
        f"PostgreSQL     {found.postgres.name}: {found.postgres.image}, {found.postgres.state}",
        f"Database       {found.database.name}, application logs in as {found.database.user}",
        f"Data           {found.data_mount.source} ({found.data_mount.kind})",
        f"Keys           {found.keys_mount.source if found.keys_mount else 'not mounted'}",
        f"Configuration  {', '.join(file.archive_name for file in found.config_files) or 'none found'}",
        f"Repository     {config.repository}, {size_text(free_bytes)} free",
        *told,
        f"Signing key    {identity.public or 'none yet: the first backup makes it'}",
    ]
    if identity.public:
        lines += [
            f"  Keep a copy of {identity.key_file} with the recovery sheet: by it this installation knows its own backups. To put it back, copy it"
            " to the same path (0600). Without it: new backups are signed with a new key, the former ones count again once the public key above stands"
            " in trusted_keys.",
        ]
    elif identity.former:
        lines += [
            f"  {identity.key_file} is gone: put its copy back, or add trusted_keys: [{', '.join(identity.former)}] to the settings."
        ]
    lines += _encryption_text(config)
    for each in wrong:
        lines += ["", f"{each.severity.upper()}: {each.what}", f"  HINT: {each.hint}"]
    clear = not any(each.severity == "error" for each in wrong)
    return "\n".join([*lines, *posture, "", "Nothing is in the way of a backup." if clear else ""])
