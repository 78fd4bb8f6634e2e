"""What a repository holds besides an installation's own backups, in a few words: what is an attack or a loss, and what is merely there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tasks.core.archive.authenticity import Authenticity
from tasks.core.policy.status import Problem

NAMED = 3


def authenticity_problems(
    found: Mapping[str, Authenticity], missing: Sequence[str], *, key_missing: str, lost_keys: Mapping[str, int]
) -> list[Problem]:
    """Tell what somebody must look at: forged, replayed and missing backups, and a key that was lost.

    `key_missing` names a key file that was there and is gone; `lost_keys` count the backups that this installation
    signed with a key it has no more.
    """
    texts = []
    for state, meaning in (
        ("forged", "are not what was signed: they count for nothing, and are not removed; look at who can write there"),
        ("replayed", "were put back or copied: they count for nothing; those that are rightly there: `mailarchiver-backup adopt BACKUP`"),
        ("outdated", "have an older record in place of a newer one, with its verdict: they count for nothing until `mailarchiver-backup verify BACKUP`"),
        ("missing link", "follow a backup that is missing"),
    ):  # fmt: skip
        names = [
            name for name, each in found.items() if str(each) == state or (state == "forged" and each.state == state)
        ]
        texts += [f"{_named(names)} {meaning}"] if names else []
    if missing:
        texts.append(f"{_named(missing)}: made here and not removed by us, but gone or changed")
    if key_missing:
        texts.append(
            f"the signing key {key_missing} is gone; put its copy back, or the next backup makes a new one and the backups before count for"
            " nothing until the former public key stands in trusted_keys"
        )
    texts += [
        f"{count} backups are signed with this installation's former key {key}: they count again once that key's file is put back, or"
        f" `trusted_keys: [{key}]` stands in the settings" for key, count in lost_keys.items()
    ]  # fmt: skip
    return [Problem("authenticity", text) for text in texts]


def notes_on_others(found: Mapping[str, Authenticity]) -> list[str]:
    """Tell in a line for each kind what else lies in the repository, and what can be done."""
    notes = []
    unsigned = [name for name, each in found.items() if each.state == "unsigned"]
    foreign = [name for name, each in found.items() if each.state == "foreign"]
    if unsigned:
        notes.append(
            f"{_named(unsigned)} not signed: kept, but counted for nothing. Those made before archives were signed:"
            " `mailarchiver-backup adopt` checks and signs them"
        )
    if foreign:
        notes.append(f"{_named(foreign)} of others: never counted, never removed; `list` says whose")
    changed = sorted({note for each in found.values() if each.counts for note in each.notes})
    return notes + [f"of our own backups: {note}" for note in changed[:NAMED]]


def clock_problems(problems: Sequence[str]) -> list[Problem]:
    """Tell of clocks."""
    return [Problem("clock", each) for each in problems if each]


def made_before(created: datetime | None, made_at: datetime | None) -> bool:
    """Tell whether an archive is dated before the installation signed anything: only such are adopted without being named."""
    return created is not None and (made_at is None or created <= made_at)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:NAMED])
    more = len(names) - NAMED
    return (
        f"{len(names)} archives ({shown}{f' and {more} more' if more > 0 else ''})"
        if len(names) > 1
        else f"archive {shown}"
    )
