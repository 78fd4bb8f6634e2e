"""Scratch directories in a repository: what a backup needs for a while, gone with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.adapters.archive.writer import PartialArchive
from tasks.adapters.host.files import remove_tree
from tasks.adapters.host.journals import Journal, open_journal
from tasks.core.archive.names import PREFIX
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.recovery.journalled import journalled

SCRATCH_KIND = "scratch"


@contextmanager
def scratch_beside(installation: Installation, archive: PartialArchive) -> Iterator[Path]:
    """Give the name of a scratch directory beside an archive that is being made; it goes at the end of the block, and after a kill."""
    scratch = archive.repository / f".{archive.name}.copy"
    journal = open_journal(
        SCRATCH_KIND,
        {"scratch": str(scratch)},
        installation_id=installation.id,
        installation_directory=installation.directory,
    )
    with journalled(journal, lambda: remove_scratch(scratch)):
        yield scratch


def settle(journal: Journal) -> str:
    """Remove the scratch directory of a dead run."""
    scratch = Path(str(journal.body["scratch"]))
    remove_scratch(scratch)
    return f"removed {scratch}"


def remove_scratch(scratch: Path) -> None:
    """Remove a scratch directory; refuse anything else. Already gone is success."""
    if not (scratch.name.startswith(f".{PREFIX}") and scratch.name.endswith(".copy")):
        raise Refused(f"{scratch} is no scratch directory of ours and is not removed")
    remove_tree(scratch)
