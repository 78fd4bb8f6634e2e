"""The steps of an incremental backup besides the copy: what it builds on, and what the next one will need."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.adapters.archive.base_manifests import base_manifest_of, forget_base_manifests, keep_base_manifest
from tasks.adapters.archive.ownership import names_in
from tasks.adapters.archive.repository import list_backups
from tasks.adapters.archive.writer import PartialArchive
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import Session, session
from tasks.adapters.postgres.wal_summaries import leave_token, server_history, switch_on
from tasks.backup.data_directory import BaseBackup, DataPlan, Since, copy_running_data
from tasks.backup.free_space import WAL_BYTES
from tasks.core.archive.manifest import Link, Record
from tasks.core.errors import BackupError, ProgramFailed
from tasks.core.policy.chains import SUMMARIES_SINCE, OnlineKind, chain_of, full_is_as_quick, plan_increment
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack.installation import Installation
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import look_at
from tasks.step import step

logger = logging.getLogger(__name__)

BLOCK_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Chain:
    """Where a backup stands: what it builds on (None: it is a full one), its parents, and why it is full although it was not to be.

    `bytes` is what it may need, as far as the server can tell; `noted` says that the next one may build on it.
    """

    bytes: int
    since: Since | None = None
    parents: tuple[Link, ...] = ()
    why_full: str = ""
    noted: bool = False


@step(name="choose parent")
def choose_parent(
    config: InstallationConfig, installation: Installation, plan: DataPlan, kind: OnlineKind | None, *, now: datetime
) -> Chain:
    """Choose what the backup builds on; full where it cannot build on anything, which is told.

    Where the settings want incremental backups, the server is told to note what changes (`summarize_wal`), if it does not yet.
    """
    wanted = config.settings.incremental
    asked = wanted.kind != "full"
    chosen = kind or wanted.kind
    if not asked and chosen == "full":
        return Chain(plan.bytes)
    with server_of(installation) as server, session(server, "postgres", purpose="plan") as opened:
        if asked and plan.facts.server_major >= SUMMARIES_SINCE and (problem := _switched_on(opened)):
            return full_instead(plan, problem, noted=False)
        history = server_history(opened)
        backups = list_backups(config.repository)
        records = look_at(config, backups, now=now).records
        sizes = {each.name: each.bytes for each in backups}
        there = {each.manifest.name: each.sha256 for each in records if sizes.get(each.manifest.name) == each.bytes}
        found = plan_increment(chosen, records, there, history, config.chain_rules, now=now)
        noted = history.summarizes
        if found.parent is None:
            return full_instead(plan, found.why_full, noted=noted)
        since, changed_bytes, problem = _seen_since(opened, config, found.parent)
        if since is None:
            return full_instead(plan, problem, noted=noted)
        if chosen == "auto" and (reason := full_is_as_quick(changed_bytes, plan.bytes)):
            return full_instead(plan, reason, noted=noted)
    logger.info("Incremental, since %s (%d links before it)", found.parent.manifest.name, len(chain_of(found.parent)))
    return Chain(min(plan.bytes, changed_bytes + WAL_BYTES), since, chain_of(found.parent), "", noted)


def _switched_on(opened: Session) -> str:
    """Have the server note what changes; say why it does not ("" where it does): a backup is worth more than an incremental one."""
    try:
        if switch_on(opened):
            logger.info("Switched on summarize_wal: the server notes from now on what changes")
    except BackupError as error:
        if error.transient:
            raise
        return f"the server cannot be told to note what changes: {error.message}"
    return ""


def full_instead(plan: DataPlan, why: str, *, noted: bool) -> Chain:
    """Give a full backup, and tell why it is one although it was to be incremental ("" where a full one was asked for)."""
    if why:
        logger.warning("This backup is a full one: %s", why)
    return Chain(plan.bytes, why_full=why, noted=noted)


def _seen_since(opened: Session, config: InstallationConfig, parent: Record) -> tuple[Since | None, int, str]:
    """Give the parent's list of files and how much has changed since; or why nothing can be built on it."""
    name = parent.manifest.name
    content = base_manifest_of(config.id, parent)
    if content is None:
        return None, 0, f"PostgreSQL's list of the files of {name} is not here any more"
    timeline, start = _begin_of(json.loads(content))
    if timeline != opened.value("SELECT timeline_id FROM pg_control_checkpoint()"):
        return None, 0, f"{name} is of timeline {timeline}, which is not the server's"
    (row,) = opened.execute(
        "WITH s AS (SELECT start_lsn, end_lsn, lag(end_lsn) OVER (ORDER BY start_lsn) AS before FROM pg_available_wal_summaries()"
        " WHERE tli = %(tli)s AND end_lsn > %(start)s::pg_lsn)"
        " SELECT min(start_lsn) <= %(start)s::pg_lsn AND bool_and(before IS NULL OR before >= start_lsn),"
        " (SELECT count(DISTINCT (relfilenode, reltablespace, reldatabase, relforknumber, relblocknumber))"
        "  FROM s AS each, pg_wal_summary_contents(%(tli)s, each.start_lsn, each.end_lsn)) FROM s",
        {"tli": timeline, "start": start},
    )
    if row[0] is False:
        return None, 0, f"the server's notes of what has changed since {name} are gone (wal_summary_keep_time)"
    return Since(name, content), int(row[1]) * BLOCK_BYTES, ""


def _begin_of(base_manifest: Any) -> tuple[int, str]:
    """Give the timeline and position at which a base backup began, by its own manifest."""
    last = max(base_manifest["WAL-Ranges"], key=lambda each: int(each["Timeline"]))
    return int(last["Timeline"]), str(last["Start-LSN"])


class IncrementRefused(ProgramFailed):
    """PostgreSQL did not make an incremental backup, and would make a full one."""


def copy_data(installation: Installation, archive: PartialArchive, limits: DumpLimits, chain: Chain) -> BaseBackup:
    """Copy the running server's data, or what of it has changed; raise IncrementRefused where PostgreSQL does not take the parent."""
    try:
        return copy_running_data(installation, archive, limits, chain.since)
    except ProgramFailed as error:
        if chain.since is not None and _refuses_parent(error):
            raise IncrementRefused(error.message) from error
        raise


def _refuses_parent(error: ProgramFailed) -> bool:
    """Tell whether PostgreSQL refuses the parent: any failure but one that a full backup would meet as well."""
    words = ("incremental", "summar", "manifest", "timeline")
    return not error.transient and any(each in error.stderr.lower() for each in words)


@step(name="note what the next one needs")
def note_for_next(installation: Installation, name: str, config: InstallationConfig, copied: BaseBackup) -> str:
    """Leave a token in the server, and keep PostgreSQL's list of the copied files here; return the token, for the manifest.

    "" where the server takes none, which is logged: then nothing is built on this backup.
    """
    try:
        with server_of(installation) as server, session(server, "postgres", purpose="note") as opened:
            token = leave_token(opened)
    except BackupError as error:
        if error.transient:
            raise
        logger.warning("The next backup cannot build on this one: %s", error.message)
        return ""
    keep_list(config, name, copied.manifest)
    return token


def keep_list(config: InstallationConfig, name: str, manifest: bytes) -> None:
    """Keep PostgreSQL's list of a backup's files where the next one looks for it, and forget those of backups that are gone."""
    forget_base_manifests(config.id, names_in(config.repository) | {name})
    keep_base_manifest(config.id, name, manifest)
