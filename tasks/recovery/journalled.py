"""Give back what was borrowed without hiding why the block ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.adapters.host.journals import OpenJournal
from tasks.core.errors import BackupError


@contextmanager
def journalled(journal: OpenJournal, give_back: Callable[[], None]) -> Iterator[None]:
    """Run `give_back` at the end of the block, and remove the journal once it succeeded; else leave both to `recover`.

    An error of the block stays the first error: when giving back fails as well, that is added to it as a note.
    """
    try:
        try:
            yield
        except BaseException as error:
            try:
                give_back()
                journal.remove()
            except (BackupError, OSError) as second:
                error.add_note(f"Then cleaning up failed: {second} (`mailarchiver-backup recover` tries again)")
            raise
        give_back()
        journal.remove()
    finally:
        journal.abandon()
