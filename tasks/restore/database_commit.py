"""Drop what a restore of a database put aside (`commit`): afterwards there is no way back."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.own_directories import Identity, exists, remove_same, require_same
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, MAINTENANCE_DATABASE, session
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.restore.kept_database import Kept, is_back, require_computed, require_number, server_for
from tasks.restore.kept_list import remove_entry
from tasks.run.installations import installation_of
from tasks.step import step

logger = logging.getLogger(__name__)

DROP_KIND = "drop"


@step(name="check commit")
def check_drop(installation: Installation, kept: Kept) -> None:
    """Raise Refused, with nothing changed, where PostgreSQL would not drop what was kept, or something else bears its name."""
    if kept.keys and exists(Path(kept.keys)):
        require_same(Path(kept.keys), kept.keys_identity)
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="look") as opened:
        if is_back(opened, kept):
            return
        require_number(opened, kept)
        databases.refuse_to_drop(opened, kept.database)


@step(name="drop kept data", retries=0)
def drop_kept(installation: Installation, kept: Kept) -> None:
    """Drop what was put aside, the database first, then its keys; safe to repeat. Where PostgreSQL refuses, nothing has changed.

    A journal lets `recover` remove the keys of a database that is gone already.
    """
    require_computed(installation, kept)
    keys = Path(kept.keys) if kept.keys else None
    if keys is not None and exists(keys):
        require_same(keys, kept.keys_identity)
    with (
        server_of(installation) as server,
        session(server, MAINTENANCE_DATABASE, purpose="commit", answer_seconds=LONG_ANSWER_SECONDS) as opened,
    ):
        if is_back(opened, kept):
            logger.warning("%s was brought back by hand as %s; it is no longer listed as kept", kept.database, kept.of)
            remove_entry(installation.directory, "database", kept.mark)
            return
        require_number(opened, kept)
        body = {
            "project": installation.project,
            "database": kept.database,
            "number": kept.number,
            "keys": kept.keys,
            "keys_identity": asdict(kept.keys_identity) if kept.keys_identity else None,
        }
        journal = open_journal(
            DROP_KIND, body, installation_id=installation.id, installation_directory=installation.directory
        )
        try:
            try:
                databases.drop_database(opened, kept.database)
            except Refused:
                journal.remove()
                raise
            if keys is not None:
                remove_same(keys, kept.keys_identity)
            remove_entry(installation.directory, "database", kept.mark)
            journal.remove()
        finally:
            journal.abandon()


def settle_drop(journal: Journal) -> str:
    """Complete the dropping of kept data whose database is gone, or half gone; where it is whole, nothing had begun."""
    installation = installation_of(journal)
    name, number, keys = str(journal.body["database"]), int(journal.body["number"]), str(journal.body["keys"])
    kept = Kept(name, installation.database.name, "", "", keys, "", None, number=number)
    require_computed(installation, kept)
    with server_for(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="recover") as opened:
        entry = databases.database_numbered(opened, number)
        if entry is not None and not entry.is_broken:
            return f"the commit had not begun: {entry.name} is still kept"
        if entry is not None:
            require_number(opened, kept)
            databases.drop_database(opened, entry.name)
    if keys:
        remove_same(Path(keys), Identity.read(journal.body.get("keys_identity")))
    remove_entry(installation.directory, "database", kept.mark)
    return f"completed the commit: {name} is dropped"
