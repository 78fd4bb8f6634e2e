"""Prove a loaded replacement, and give it what belongs to a database itself."""

from __future__ import annotations

import logging

from tasks.adapters.archive.reader import (
    Archive,
)
from tasks.adapters.postgres import facts as facts_of
from tasks.adapters.postgres.census import rows_of, take_census
from tasks.adapters.postgres.facts import database_facts, server_major
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session
from tasks.core.dump.census import differences, in_the_expected_order, reordered
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack.database_attributes import attribute_differences
from tasks.core.stack.installation import Installation
from tasks.progress import progress
from tasks.restore.database_beside import Replacement
from tasks.restore.database_load import Loaded
from tasks.restore.expected import Expected
from tasks.restore.roles import facts_of_archive, owner_of
from tasks.step import step

logger = logging.getLogger(__name__)


@step(name="prove replacement", retries=1)
def prove_replacement(
    installation: Installation, loaded: Loaded, new: Replacement, expected: Expected, limits: DumpLimits
) -> list[str]:
    """Take the census of the replacement and return in words how it differs from the expected one; nothing is equal.

    What was left out on purpose counts neither way. Where nothing is known to be expected, nothing differs.
    """
    archive = loaded.archive
    if expected.census is None:
        return []
    options = expected.shape.pg_dump_options() if expected.shape else []
    # What was read back is in the server's encoding.
    known = loaded.rows if expected.shape is None or expected.shape.encoding == "UTF8" else {}
    with progress("census"):
        found = take_census(installation, new.database, expected.archive_format, limits, known=known, options=options)
    with server_of(installation) as server:
        if not (expected.shape and expected.shape.inserts) and (targets := reordered(expected.census, found)):
            encoding = expected.shape.encoding if expected.shape else ""
            read = rows_of(server, new.database, targets, limits, encoding=encoding)
            found = in_the_expected_order(found, read)
        with session(server, MAINTENANCE_DATABASE, purpose="check") as opened:
            major = server_major(opened)
    by = archive.manifest.database.server_major if archive.manifest else expected.shape and expected.shape.major
    left_out = loaded.left_out
    before, after = left_out.without(expected.census), left_out.without(found)
    if expected.shape is not None:
        before, after = expected.shape.comparable(before), expected.shape.comparable(after)
    return differences(before, after, compare_schema=by is None or by == major)


@step(name="apply database attributes")
def apply_attributes(
    installation: Installation, archive: Archive, new: Replacement, *, foreign: bool = False
) -> list[str]:
    """Give the replacement what belongs to a database itself: grants, settings, limits, labels; return in words what it could not be given.

    The last thing before the swap, so that none of it acts on the load or the proof. Safe to repeat. From a foreign
    archive's manifest nothing is taken: settings and grants act on every user of the database. It gets those of the
    database that it replaces.
    """
    with server_of(installation) as server:
        with session(server, MAINTENANCE_DATABASE, purpose="restore") as opened:
            facts = facts_of_archive(archive, opened, installation, of_current=foreign)
            owner = owner_of(opened, facts, installation)
            refused = facts_of.apply_attributes(opened, new.database, facts, owner=owner)
        with session(server, new.database, purpose="check") as opened:
            found = database_facts(opened)
    for words in (told := refused or attribute_differences(facts, found)):
        logger.warning("%s", words)
    return told
