"""Which backup a new machine is set up from: the newest that counts, and in words why it and no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.core.archive.authenticity import Authenticity
from tasks.core.archive.manifest import Record
from tasks.core.archive.origin import FRESH_HOST_HINT
from tasks.core.errors import Refused, UsageError
from tasks.core.policy.chains import missing_links
from tasks.core.policy.clocks import is_ahead
from tasks.core.units import duration_text

NAMED = 3


@dataclass(frozen=True, slots=True)
class Found:
    """A backup at a place: `record` is None for an archive without one, `created` None where nothing tells its moment."""

    name: str
    created: datetime | None
    record: Record | None
    authenticity: Authenticity
    encrypted: bool = False

    @property
    def installation(self) -> str:
        """Give whose it says it is; "" where it says nothing."""
        return self.record.manifest.installation if self.record else ""

    @property
    def is_refuted(self) -> bool:
        """Tell whether a verification of these very bytes found them wrong, or not to be restored."""
        verdict = self.record.verification if self.record else None
        return verdict is not None and self.record is not None and (
            verdict.archive_sha256 == self.record.sha256 and verdict.verdict in ("different", "failed")
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backup that was chosen, why, and which newer ones were passed over for what."""

    found: Found
    why: str
    passed_over: tuple[str, ...] = ()
    older: tuple[str, ...] = ()


def choose(
    there: Sequence[Found], wanted: str, *, place: str, now: datetime, foreign: bool, partial: Sequence[str] = ()
) -> Chosen:
    """Choose a backup by name, or as "latest" the newest that is signed with a known key, not of the future, and not refuted.

    With `foreign` a signature is not asked for. `partial` are names of which the place has a part only. Raise UsageError
    where there is none of that name or none at all, Refused where none counts, or where it is not clear whose is meant.
    """
    if not there:
        lost = f"; of {', '.join(sorted(partial)[-NAMED:])} only a part is there" if partial else ""
        raise UsageError(
            f"there is no backup at {place}{lost}",
            hint="is it the right directory? it holds the mailarchiver-backup-... files",
        )
    ordered = sorted(there, key=lambda each: (each.created is not None, each.created or now, each.name), reverse=True)
    if wanted != "latest":
        return _named(ordered, wanted, place, partial)
    passed: list[str] = []
    fit: list[Found] = []
    known = {each.name: each.record.sha256 for each in there if each.record is not None}
    for each in ordered:
        problem = _problem(each, now, known, foreign=foreign)
        if not problem:
            fit.append(each)
        elif not fit:
            passed.append(f"{each.name}: {problem}")
    passed += [f"{name}: only a part of it is there" for name in partial if not fit or name > fit[0].name]
    if not fit:
        told = "; ".join(passed[:NAMED]) + (f"; and {len(passed) - NAMED} more" if len(passed) > NAMED else "")
        raise Refused(
            f"{f'none of the {len(there)} backups' if len(there) > 1 else 'no backup'} at {place} is known here: {told}",
            hint=FRESH_HOST_HINT,
        )
    whose = sorted({each.installation for each in fit})
    if len(whose) > 1:
        newest = "; ".join(
            f"of {name or 'unknown'} {next(each.name for each in fit if each.installation == name)}" for name in whose
        )
        raise Refused(
            f"backups of several installations are at {place}: the newest {newest}", hint="say which one: --backup NAME"
        )
    return Chosen(
        fit[0], _why(fit[0], len(there), place, now, foreign=foreign), tuple(passed), tuple(each.name for each in fit[1:])
    )  # fmt: skip


def _named(ordered: Sequence[Found], wanted: str, place: str, partial: Sequence[str]) -> Chosen:
    for each in ordered:
        if each.name == wanted:
            return Chosen(each, f"{each.name}, as you named it")
    if wanted in partial:
        raise Refused(f"of {wanted} only a part is at {place}", hint="take another one: --backup NAME, or latest")
    raise UsageError(
        f"there is no backup {wanted!r} at {place}",
        hint=f"the newest there: {', '.join(each.name for each in ordered[:NAMED])}",
    )


def _problem(each: Found, now: datetime, there: Mapping[str, str], *, foreign: bool) -> str:
    if not foreign and not each.authenticity.counts:
        return each.authenticity.reason or str(each.authenticity)
    if each.created is not None and is_ahead(each.created, now):
        return "it is dated after now"
    if each.is_refuted:
        return "its verification refuted it"
    if each.record is not None and (missing := missing_links(each.record.manifest, there)):
        return missing[0]
    return ""


def _why(each: Found, count: int, place: str, now: datetime, *, foreign: bool) -> str:
    age = f", {duration_text((now - each.created).total_seconds())} old" if each.created else ""
    known = (
        "no matter who made it" if foreign and not each.authenticity.counts else "signed with a key that is known here"
    )
    there = f"the newest of the {count} backups" if count > 1 else "the only backup"
    proven = ", proven by a restore" if each.record is not None and each.record.verified else ", never verified"
    return f"{each.name}{age}{proven}: {there} at {place}, {known}"
