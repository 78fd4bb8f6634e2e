"""Indexes: which are invalid, and which do not agree with their tables."""

from __future__ import annotations

import logging
from collections.abc import Collection

from tasks.adapters.postgres.session import Session, unguarded
from tasks.core.errors import ProgramFailed

logger = logging.getLogger(__name__)


def invalid_indexes(session: Session) -> list[str]:
    """Name the indexes that PostgreSQL does not use: a concurrent build that failed, a partitioned one that lacks a partition's."""
    rows = session.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1")
    return [name for (name,) in rows]


def newly_invalid_indexes(opened: Session, before: Collection[str]) -> list[str]:
    """Name the invalid indexes that were not so before."""
    return [f"index {name} is invalid" for name in invalid_indexes(opened) if name not in before]


def damaged_indexes(opened: Session, *, thorough: bool) -> list[str] | None:
    """Name the B-trees that `amcheck` finds damaged, None where the image has none and nothing was walked; leave nothing behind."""
    wrong: list[str] = []
    if not opened.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'"):
        logger.info("This image has no amcheck; B-trees were not walked")
        return None
    had = bool(opened.execute("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'"))
    if not had:
        with unguarded(opened):
            opened.execute("CREATE EXTENSION amcheck")
    schema = opened.value(
        "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'amcheck'"
    )
    trees = opened.execute(
        "SELECT c.oid, c.oid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE a.amname = 'btree' AND i.indisvalid AND c.relkind = 'i' AND n.nspname !~ '^pg_' AND c.relpersistence = 'p'"
    )
    for oid, name in trees:
        try:
            opened.execute(f"SELECT {schema}.bt_index_check(%s::oid, %s)", (oid, thorough))
        except ProgramFailed as error:
            wrong.append(f"index {name} is damaged: {error.message}")
    if not had:
        with unguarded(opened):
            opened.execute("DROP EXTENSION amcheck")
    return wrong
