"""Which backup the next incremental one builds on, and what a backup needs besides itself: pure decisions.

A server that was set back (a restore, a snapshot of its machine) may write other WAL under the same positions, on the same timeline, and
PostgreSQL would take an incremental backup against a parent of the former future without a word. So each base backup leaves a token in
the server when it has ended: only a server that has a backup's token went on from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from tasks.core.archive.manifest import Link, Manifest, Record

OnlineKind = Literal["full", "incremental", "auto"]
SUMMARIES_SINCE = 17
TOKENS_KEPT = 200
# Measured at 0.6-1.3 GB: a backup of a quarter, a half, three quarters or all of the blocks took 0.96, 0.52, 0.66 and 0.96 of the time of a
# full one, and as much of its bytes as had changed. From here on a chain gains nothing, and its restore reads nearly everything twice.
CHANGED_SHARE_FOR_FULL = 0.75


@dataclass(frozen=True, slots=True)
class ServerHistory:
    """What a server says of itself: which cluster it is, whether it notes what changes, and the tokens of the backups it went on from."""

    system_identifier: str
    major: int
    summarizes: bool
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChainRules:
    """When the next backup is a full one although it could be incremental: so many days after the last, or after so many links.

    A `synthetic` one is put together from the chain, and then the backup itself stays incremental.
    """

    full_after_days: float
    full_after_links: int
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Increment:
    """What a backup is to be: incremental on `parent`, or full, and why although it was to be incremental ("" where a full one was asked for)."""

    parent: Record | None = None
    why_full: str = ""


def plan_increment(
    kind: OnlineKind,
    records: Sequence[Record],
    there: Mapping[str, str],
    server: ServerHistory,
    rules: ChainRules,
    *,
    now: datetime,
) -> Increment:
    """Choose what the next online backup builds on.

    `records` are the installation's own, newest first; `there` gives the SHA-256 of each archive that is in place, by its
    backup's name. "incremental" knows no regular full one; what is missing makes one all the same.
    """
    if kind == "full":
        return Increment()
    if server.major < SUMMARIES_SINCE:
        return Increment(why_full=f"PostgreSQL {server.major} does not note what changes; {SUMMARIES_SINCE} does")
    if not server.summarizes:
        return Increment(why_full="summarize_wal is off: `incremental.kind` of the settings has it switched on")
    by_name = {each.manifest.name: each for each in records}
    parent, why = None, ""
    for each in records:
        if not each.manifest.history:
            continue
        if not (obstacle := _obstacle_of(each, by_name, there, server)):
            parent = each
            break
        why = why or obstacle  # that of the newest
    if parent is None:
        return Increment(why_full=why or "there is no online backup yet that it could build on")
    if kind == "auto" and not rules.synthetic and (due := _full_is_due(parent, records, rules, now)):
        return Increment(why_full=due)
    return Increment(parent)


def _obstacle_of(record: Record, by_name: Mapping[str, Record], there: Mapping[str, str], server: ServerHistory) -> str:
    """Say why nothing can be built on a backup; "" where it can."""
    manifest = record.manifest
    if manifest.database.system_identifier != server.system_identifier:
        return f"{manifest.name} is of another cluster ({manifest.database.system_identifier}, this is {server.system_identifier})"
    if manifest.database.server_major != server.major:
        return f"{manifest.name} is of PostgreSQL {manifest.database.server_major}, this is {server.major}"
    if manifest.history not in server.tokens:
        return f"the server did not go on from {manifest.name}: it was restored, or set back, or its settings were"
    for link in chain_of(record):
        known = by_name.get(link.name)
        if link.name not in there or known is None:
            return f"{link.name} is missing"
        if there[link.name] != link.sha256:
            return f"{link.name} is another than {manifest.name} was built on"
        if known.verification is not None and known.refuted:
            return f"{link.name} was found to be {known.verification.verdict}"
    return ""


def full_is_as_quick(changed_bytes: int, whole_bytes: int) -> str:
    """Say why a full backup is the better one although there is a parent: nearly all has changed; "" where it is not.

    >>> full_is_as_quick(10, 100)
    ''
    >>> full_is_as_quick(80, 100)
    '80 % of the data have changed since the last one: a full one takes no longer'
    """
    if whole_bytes <= 0 or changed_bytes < CHANGED_SHARE_FOR_FULL * whole_bytes:
        return ""
    share = min(100, changed_bytes * 100 // whole_bytes)
    return f"{share} % of the data have changed since the last one: a full one takes no longer"


def chain_of(record: Record) -> tuple[Link, ...]:
    """Give all that must be put together for a backup, the full one first, itself last."""
    return (*record.manifest.parents, Link(name=record.manifest.name, file=record.file, sha256=record.sha256))


def needs_of(record: Record) -> tuple[str, ...]:
    """Name the backups that a backup needs besides itself: its parents; and the chain it was put together from, until it is proven."""
    manifest = record.manifest
    return (*(each.name for each in manifest.parents), *(() if record.verified else manifest.made_of))


def synthetic_is_due(records: Sequence[Record], rules: ChainRules, *, now: datetime) -> str:
    """Say why the newest backup's chain is to be put together now; "" where it is not, or where it is no chain. `records` are newest first."""
    newest = records[0] if records else None
    if newest is None or not newest.manifest.is_incremental or not rules.synthetic:
        return ""
    return _full_is_due(newest, records, rules, now)


def missing_links(manifest: Manifest, there: Mapping[str, str]) -> list[str]:
    """Say which links of a chain are not in place, or are others than it was built on."""
    found = []
    for link in manifest.parents:
        if link.name not in there:
            found.append(f"{manifest.name} needs {link.file}, which is missing")
        elif there[link.name] != link.sha256:
            found.append(
                f"{manifest.name} needs {link.file}, which is another archive now (SHA-256 {there[link.name]})"
            )
    return found


def _full_is_due(parent: Record, records: Sequence[Record], rules: ChainRules, now: datetime) -> str:
    links = len(parent.manifest.parents) + 1
    if links >= rules.full_after_links:
        return f"the chain has {links} links, and a full one is due after {rules.full_after_links}"
    first = chain_of(parent)[0].name
    full = next((each for each in records if each.manifest.name == first), parent)
    if now - full.manifest.created_at >= timedelta(days=rules.full_after_days):
        return f"the full backup {first} is {rules.full_after_days:g} days old or more"
    return ""
