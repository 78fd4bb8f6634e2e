"""May the application be upgraded to that image, and has the upgrade kept every mail? Decided from facts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tasks.core.errors import Refused

VERSION_LABEL = "org.opencontainers.image.version"
MAILS = "ArchivedEmails"
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)(?:[-+].*)?", re.ASCII)
# The application logs a failed migration, and starts all the same.
_FAILED = re.compile(r"\b(?:fail|failed|failure|failing|error|exception)\b", re.IGNORECASE)
_MIGRATION = re.compile(r"migrat", re.IGNORECASE)
_SHOWN = 200


def version_of(image: str, labels: Mapping[str, str]) -> str:
    """Give an image's version as its label says, else as its tag does; "" where neither is one.

    >>> version_of("s1t5/mailarchiver:2609.1", {}), version_of("s1t5/mailarchiver:latest", {})
    ('2609.1', '')
    """
    head, colon, tag = image.partition("@")[0].rpartition(":")
    said = (labels.get(VERSION_LABEL, ""), tag if head and colon and "/" not in tag else "")
    return next((found[1] for each in said if (found := _VERSION.fullmatch(each.strip()))), "")


def refuse_older_image(old: str, new: str, *, image: str) -> None:
    """Raise Refused where both versions are known and the new one is older; "" is not known.

    Migrations go forward only: an older application on newer data does not work, and does not say so.
    """
    if old and new and _numbers(new) < _numbers(old):
        raise Refused(
            f"{image} is version {new}, older than {old}, which runs: an application older than its data does not work",
            hint="to go back, `mailarchiver-backup rollback`, or restore a backup that was taken with it",
        )


def _numbers(version: str) -> tuple[int, ...]:
    found = [int(each) for each in version.split(".")]
    while len(found) > 1 and not found[-1]:
        found.pop()
    return tuple(found)


def losses(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """Say in words of which rows that count there are fewer than before, or no table any more.

    >>> losses({"ArchivedEmails": 3}, {"ArchivedEmails": 2})
    ['2 rows in ArchivedEmails, 3 before']
    """
    return [
        f"{after[table]:,} rows in {table}, {count:,} before" if table in after else f"table {table} is gone"
        for table, count in sorted(before.items())
        if after.get(table, -1) < count
    ]


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """Say in words of which rows that count there is another number than before: where nothing arrives, none may come or go."""
    more = [
        f"{after[table]:,} rows in {table}, {count:,} before"
        for table, count in sorted(before.items())
        if after.get(table, -1) > count
    ]
    return [*losses(before, after), *more]


def failed_migrations(log: Sequence[str]) -> list[str]:
    """Give the lines of the application's log that tell of a failed migration (the first few)."""
    return [line.strip()[:_SHOWN] for line in log if _MIGRATION.search(line) and _FAILED.search(line)][:3]


def went_back(before: str | None, after: str | None) -> bool:
    """Tell whether the schema's version is an older one than before; the ids of migrations begin with their date.

    >>> went_back("20260818120000_A", "20260929120000_B"), went_back("20260929120000_B", None)
    (False, True)
    """
    return before is not None and (after is None or after < before)
