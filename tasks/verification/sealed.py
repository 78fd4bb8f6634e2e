"""Prove a backup that is encrypted: by the key that was made for its one verification, or by the recovery key."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.open_keys import keys_for, opening_with
from tasks.adapters.archive.repository import read_record
from tasks.adapters.archive.verification_keys import drop_key, kept_key
from tasks.core.archive.manifest import OpenedWith, Record, Verification
from tasks.core.archive.names import is_sealed
from tasks.core.errors import NoKey, UsageError
from tasks.restore.check_archive import wanted_backup
from tasks.run.config import InstallationConfig
from tasks.run.drills import note_drill
from tasks.verification.verify import Verified

logger = logging.getLogger(__name__)


class NotVerifiableHere(NoKey):
    """No key is here that opens a backup: nothing was found out about it."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path.name} is encrypted, and the key for its verification is not here (never kept, used, or past its limit): not verifiable here",
            hint="verify it with the recovery key: `mailarchiver-backup verify --with-recovery-key --identity FILE`",
        )
        self.path = path


@contextmanager
def opened_for_verification(config: InstallationConfig, backup: str, *, recovery_key: bool) -> Iterator[OpenedWith]:
    """Open a backup within the block, and say by which key; raise NotVerifiableHere where none is at hand.

    With `recovery_key` only the operator's own key counts, so that a lost one is found out before it is needed.
    """
    path = wanted_backup(config.archives, backup)
    if not is_sealed(path.name):
        if recovery_key:
            raise UsageError(
                f"{path.name} is not encrypted: no key is proven by it", hint="leave --with-recovery-key away"
            )
        yield ""
        return
    given = keys_for(path)
    if recovery_key:
        if not given:
            raise UsageError("no recovery key was given", hint="--identity FILE, or MAILARCHIVER_BACKUP_IDENTITY")
        with opening_with(given):
            yield "recovery key"
        return
    kept = _kept_keys(config, path)
    if not kept and not given:
        raise NotVerifiableHere(path)
    with opening_with((*given, *kept)):
        yield "verification key" if kept else "identity"


def _kept_keys(config: InstallationConfig, path: Path) -> tuple[str, ...]:
    """Give the keys kept for the verification of an archive and of all that it builds on; none where one of them is not here any more."""
    record = read_record(path)
    needed = [each.file for each in record.manifest.parents if is_sealed(each.file)] if record is not None else []
    found = [kept_key(config.repository / name, now=datetime.now(UTC)) for name in (*needed, path.name)]
    return tuple(each for each in found if each is not None) if all(found) else ()


def can_be_opened(config: InstallationConfig) -> Callable[[Record], bool]:
    """Tell of records whether a key is here that opens their archives."""

    def openable(record: Record) -> bool:
        return (
            not is_sealed(record.file)
            or bool(keys_for(config.archives / record.file))
            or bool(_kept_keys(config, config.archives / record.file))
        )

    return openable


def not_verifiable(error: NotVerifiableHere, *, now: datetime, begun: float) -> Verified:
    """Give the outcome of a verification that could not look: it is no verdict on the backup, and is not recorded as one."""
    return Verified(
        error.path,
        Verification(
            verdict="not verifiable", at=now, archive_sha256="", rows=0, tables=0, attachments=0, differences=[],
            restore_seconds=0.0, seconds=round(time.monotonic() - begun, 3), compared=[],
            notes=[error.message, f"What to do: {error.hint}"],
        ),
    )  # fmt: skip


def end_of_verification(config: InstallationConfig, verified: Verified) -> None:
    """Take away the key for one verification, now that there is a verdict; note a drill of the recovery key that held.

    The key of a link on which others may be built stays until its limit: their proof is that of all of the chain.
    """
    record = read_record(verified.path)
    if record is None or not record.manifest.history or not verified.holds:
        drop_key(config.repository / verified.path.name)
    found = verified.verification
    if found.opened_with != "recovery key" or not verified.holds:
        return
    if note_drill(config.id, verified.recipients, verified.archive, found.at):
        logger.info("The recovery key opened and proved %s", verified.archive)
    else:
        logger.warning(
            "%s is encrypted to other keys than those in use: the drill says nothing of these", verified.archive
        )
