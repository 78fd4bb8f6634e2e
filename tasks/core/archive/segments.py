"""Values of an archive under construction: what the journal says, decided without a disk."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.core.archive.manifest import Format, Member
from tasks.core.archive.names import PARTIAL_EXTENSION, RECORD_EXTENSION, extension_of
from tasks.core.errors import BackupError

JOURNAL_EXTENSION = ".journal"


@dataclass(frozen=True, slots=True)
class PartialArchive:
    """An archive under construction, which no reader looks at. It belongs to the process that began it, and dies with it.

    `recipients` are the public keys that it is encrypted to, none where it is not encrypted; `verification_key` is one of them, whose private half
    is kept for one verification.
    """

    path: Path
    name: str
    format: Format
    recipients: tuple[str, ...] = ()
    verification_key: str = ""

    @property
    def repository(self) -> Path:
        """The directory it is built in, and stays in."""
        return self.path.parent

    @property
    def final_path(self) -> Path:
        """The name it gets when it is sealed."""
        return self.repository / (self.name + extension_of(self.format, sealed=bool(self.recipients)))

    @property
    def record_path(self) -> Path:
        """The sidecar beside the sealed archive."""
        return self.repository / (self.name + RECORD_EXTENSION)

    @property
    def journal_path(self) -> Path:
        """Where the segments' beginnings and ends are noted."""
        return self.path.with_name(self.path.name + JOURNAL_EXTENSION)


def partial_path(repository: Path, name: str, archive_format: Format, *, sealed: bool = False) -> Path:
    """Name the file an archive is built in."""
    return repository / (name + extension_of(archive_format, sealed=sealed) + PARTIAL_EXTENSION)


@dataclass(frozen=True, slots=True)
class FinishedSegment:
    """One step's part of the archive: where it lies in the file, and what it holds; `parts` is the number of age files in it."""

    name: str
    begins: int
    ends: int
    members: tuple[Member, ...]
    directories: tuple[str, ...]
    parts: int = 0


def journal_line(segment: FinishedSegment) -> str:
    """Write a finished segment as one line of the journal."""
    return json.dumps(
        {
            "segment": segment.name,
            "begins": segment.begins,
            "ends": segment.ends,
            "members": [[member.name, member.bytes, member.sha256] for member in segment.members],
            "directories": list(segment.directories),
            "parts": segment.parts,
        }
    )


def read_journal(lines: Iterable[str]) -> tuple[FinishedSegment, ...]:
    """Give the segments that stand, in their order.

    A later line replaces an earlier one of the same name and all that came after that: they were cut off for it. A line that
    only says where a segment began ("ends" is missing) cuts off as well and adds nothing until its end is noted.
    """
    valid: list[FinishedSegment] = []
    for line in lines:
        try:
            entry = json.loads(line)
            begins = int(entry["begins"])
            valid = [segment for segment in valid if segment.ends <= begins]
            if "ends" in entry:
                members = tuple(Member(name=name, bytes=size, sha256=sha) for name, size, sha in entry["members"])
                finished = FinishedSegment(
                    entry["segment"],
                    begins,
                    int(entry["ends"]),
                    members,
                    tuple(entry["directories"]),
                    int(entry["parts"]),
                )
                valid.append(finished)
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise BackupError(f"the archive's journal holds a line that is not ours: {line[:100]!r}") from error
    return tuple(valid)


def missing_and_extra(written: Iterable[Member], listed: Iterable[Member]) -> str:
    """Compare what was written with what a manifest lists; empty where both are the same, else a sentence naming a few."""
    have = {member.name: member for member in written}
    want = {member.name: member for member in listed}
    missing = sorted(want.keys() - have.keys())
    extra = sorted(have.keys() - want.keys())
    altered = sorted(name for name in want.keys() & have.keys() if want[name] != have[name])
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in ((missing, "missing"), (extra, "not in the manifest"), (altered, "different"))
        if names
    ]
    return "; ".join(parts)
