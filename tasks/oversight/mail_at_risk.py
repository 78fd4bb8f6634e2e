"""Look into the database for what the mail accounts delete on their servers, and remember it for when nobody can look."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import session
from tasks.adapters.stack.discovery import discover
from tasks.adapters.stack.mail_archiver import server_deletion
from tasks.core.archive.manifest import Record
from tasks.core.copies.judge import SeenCopies, newest_proven_away
from tasks.core.errors import BackupError
from tasks.core.policy.mail_at_risk import MailOnServers, ServerDeletion
from tasks.core.stack.installation import Installation
from tasks.run.config import InstallationConfig

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 20.0
# At the end of a run what a look saw shortly before will do; `watch` looks each hour.
RECENT = timedelta(hours=2)


def mail_on_servers(
    config: InstallationConfig,
    records: Sequence[Record],
    copies: Sequence[SeenCopies],
    *,
    now: datetime,
    found: Installation | None = None,
    looks: bool = True,
) -> MailOnServers:
    """Judge whether mail is at risk; `records` are the installation's own backups, newest first. Raise nothing: what cannot be seen is said.

    Without `looks`, what was seen recently is taken for what is.
    """
    deletion = deletion_seen(config, now=now, found=found, looks=looks)
    return MailOnServers(deletion, newest_proven_away(records, copies), now)


def deletion_seen(
    config: InstallationConfig, *, now: datetime, found: Installation | None = None, looks: bool = True
) -> ServerDeletion:
    """Ask the database (of the installation as it was `found`, or is found now); where it cannot be asked, give what was seen last, and why it is no newer."""
    place = state_subdirectory("mail-on-servers") / f"{config.id}.json"
    before = _remembered(place)
    if not looks and before.seen_at is not None and timedelta() <= now - before.seen_at < RECENT:
        return before
    try:
        found = found or discover(config.directory, installation_id=config.id, project=config.project)
        if found.postgres.state != "running":
            raise BackupError(f"PostgreSQL is {found.postgres.state}")
        with (
            server_of(found) as server,
            session(server, found.database.name, purpose="look", answer_seconds=ANSWER_SECONDS) as opened,
        ):
            days, accounts = server_deletion(opened)
    except BackupError as error:
        return replace(before, unknown=" ".join(error.message.split()))
    try:
        write_json(place, {"days": days, "accounts": accounts, "seen_at": now.isoformat()})
    except BackupError as error:
        logger.warning("%s", error.message)
    return ServerDeletion(days, accounts, now)


def _remembered(place: Path) -> ServerDeletion:
    try:
        found = read_json(place) or {}
        seen_at = datetime.fromisoformat(str(found["seen_at"]))
        days = None if found["days"] is None else int(found["days"])
        return ServerDeletion(days, int(found["accounts"]), seen_at)
    except (BackupError, KeyError, TypeError, ValueError) as error:
        logger.debug("what was seen before cannot be read: %s", error)
        return ServerDeletion()
