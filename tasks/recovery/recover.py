"""Finish what dead runs began: settle the journals they left.

Every flow that changes an installation calls `recover(directory)` first, under its lock; so it meets no unfinished business,
and a watchdog that comes later finds its journal gone. A timer calls `recover()` at boot and every minute. What one process
began is undone in reverse order, as its own `finally` blocks would have; where one settlement fails, the older ones of that
process wait for it, since they were opened around it.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tasks.adapters.host import state
from tasks.adapters.host.journals import (
    Journal,
    claimed,
    is_ours,
    list_journals,
    owner_in_name,
    read_journal,
    remove_partials,
)
from tasks.adapters.host.locks import installation_lock
from tasks.core.errors import BackupError, Busy
from tasks.core.stack.journal_bodies import problem_of_body

logger = logging.getLogger(__name__)

Handler = Callable[[Journal], str]

# Who settles which kind of journal, as "module:function"; imported when needed, so that the watchdog stays small. A handler
# is idempotent, makes one attempt, returns what it did in words, and raises BackupError where it did not succeed.
HANDLERS: dict[str, str] = {
    "stopped-services": "tasks.recovery.stopped_services:settle",
    "replacement": "tasks.restore.database_beside:settle",
    "swap": "tasks.restore.database_swap:settle",
    "drop": "tasks.restore.database_commit:settle_drop",
    "copy": "tasks.restore.directory_beside:settle",
    "directory-swap": "tasks.restore.directory_swap:settle",
    "directory-drop": "tasks.restore.directory_swap:settle_drop",
    "upgrade": "tasks.upgrade.turn:settle",
    "application-upgrade": "tasks.upgrade.turn:settle",
    "database-copy": "tasks.upgrade.database_copy:settle",
    "upgrade-files": "tasks.upgrade.files:settle",
    "upgrade-drop": "tasks.upgrade.kept:settle_drop",
    "staging": "tasks.verification.staging:settle",
    "scratch": "tasks.backup.scratch:settle",
    "helper": "tasks.recovery.helper_containers:settle",
    "host-volume": "tasks.machine.restored_volume:settle",
    "proxmox-guest": "tasks.proxmox.guest_loan:settle",
    "lxc-container": "tasks.guests.guest_loan:settle",
    "lxc-restore": "tasks.guests.restore_container:settle",
    "proxmox-trial": "tasks.proxmox.trial_loan:settle",
    "vm-domain": "tasks.guests.guest_loan:settle",
    "vm-restore": "tasks.guests.restore_machine:settle",
}

# What a run borrows that does not change the installation, and so without its lock: a verification of an hour, a `doctor`
# that asks an image for its version. While it lives, it is in nobody's way.
BESIDE = frozenset({"staging", "helper", "proxmox-trial"})
# What is no part of the installation, and may take long: nothing here waits until it is settled.
ELSEWHERE = frozenset({"proxmox-guest", "proxmox-trial", "lxc-container", "lxc-restore", "vm-domain", "vm-restore"})
_CLAIM_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Recovered:
    """One journal of a dead run: settled (and removed), or not, and what was done or stood in the way."""

    kind: str
    installation_id: str
    installation_directory: Path
    owner: str
    settled: bool
    message: str


def recover(installation_directory: Path | None = None) -> list[Recovered]:
    """Settle what dead runs left, of one installation or of all; leave living runs alone. Settling twice is harmless.

    For one installation: take its lock (or enter, where the caller holds it), and raise BackupError where something stays
    unsettled, for then nothing else may be changed. For all: pass over installations that are in use (their runs settle
    first, too) and report failures in the result; a journal that cannot be read is one.
    """
    remove_partials()
    if installation_directory is not None:
        directory = installation_directory.resolve()
        with installation_lock(directory, "recovery", passing=True):
            results = settle_journals(journals_of(directory), claim_seconds=_CLAIM_SECONDS)
        _raise_unsettled([each for each in results if each.kind not in ELSEWHERE])
        return results

    told: list[Recovered] = []
    found = _readable(list_journals(), unreadable=told)
    for directory in sorted({journal.installation_directory for journal in found}):
        try:
            with installation_lock(directory, "recovery", passing=True):
                told += settle_journals(journals_of(directory))
        except Busy as busy:
            logger.info("Left to the run in progress: %s", busy.message)
        except BackupError as error:
            told += [_result(journal, False, str(error)) for journal in _readable(journals_of(directory))]
    return told


def settle_journals(paths: Sequence[Path], *, claim_seconds: float = 0.0) -> list[Recovered]:
    """Settle these journals in this order, under the installation's lock; those of living processes are passed over.

    With `claim_seconds`, raise Busy where a journal's owner still lives after that time and may change the installation:
    then something works without the lock.
    """
    results: list[Recovered] = []
    unsettled: set[str] = set()
    for path in paths:
        if is_ours(path):
            continue
        patience_seconds = 0.0 if _is_beside(path) else claim_seconds
        with claimed(path, wait_seconds=patience_seconds) as journal:
            if journal is None:
                if patience_seconds and path.exists():
                    raise Busy(f"the journal {path} belongs to a process that still lives", hint="see what it is doing")
                if path.exists():
                    # Alive, or dying this very moment: what it opened before this one is not to be undone first.
                    unsettled.add(owner_in_name(path))
                continue
            if journal.owner in unsettled:
                results.append(_result(journal, False, "waits for a later step of the same run to be settled"))
                continue
            result = _settle(journal)
            results.append(result)
            if not result.settled:
                unsettled.add(journal.owner)
    return results


def _is_beside(path: Path) -> bool:
    journal = read_journal(path)
    return journal is not None and journal.kind in BESIDE


def _settle(journal: Journal) -> Recovered:
    try:
        handler = _handler(journal.kind)
        if problem := problem_of_body(journal.kind, journal.body):
            raise BackupError(
                f"{journal.path} is not a journal that this program writes: {problem}",
                hint="nothing that it tells of was touched; read it, and when it is worthless, remove it",
            )
        message = handler(journal)
        state.remove(journal.path)
    except BackupError as error:
        return _result(journal, False, str(error))
    except Exception as error:
        # A mistake of ours in one handler must not keep other installations' services down.
        logger.exception("Settling %s failed", journal.path)
        return _result(journal, False, f"unexpected {error!r}")
    logger.warning("Settled %s of process %d of %s: %s", journal.kind, journal.pid, journal.created_at, message)
    return _result(journal, True, message)


def _handler(kind: str) -> Handler:
    place = HANDLERS.get(kind)
    if place is None:
        raise BackupError(
            f"nobody here knows journals of kind {kind!r}",
            hint="was it written by a newer version? then install that again",
        )
    module, _, name = place.partition(":")
    return cast(Handler, getattr(importlib.import_module(module), name))


def journals_of(directory: Path) -> list[Path]:
    """List the journals of one installation, those of each process newest first."""
    return [each.path for each in _readable(list_journals()) if each.installation_directory == directory]


def _readable(paths: Sequence[Path], *, unreadable: list[Recovered] | None = None) -> list[Journal]:
    """Read journals; put what is to be told of those that cannot be read into `unreadable`, or into the log."""
    journals = []
    for path in paths:
        try:
            journal = read_journal(path)
        except BackupError as error:
            # They are written whole or not at all: this is no crash's doing, and must not stop the nightly backup.
            if unreadable is None:
                logger.error("A journal cannot be read: %s", error)
            else:
                unreadable.append(Recovered("unreadable journal", "", path, owner_in_name(path), False, str(error)))
            continue
        if journal is not None:
            journals.append(journal)
    return journals


def _raise_unsettled(results: Sequence[Recovered]) -> None:
    for result in results:
        if not result.settled:
            raise BackupError(
                f"what an earlier run left in {result.installation_directory} ({result.kind}) could not be settled: "
                f"{result.message}",
                hint="nothing else was touched; cure the cause and run `mailarchiver-backup recover`",
                transient=True,
            )


def _result(journal: Journal, settled: bool, message: str) -> Recovered:
    return Recovered(
        journal.kind, journal.installation_id, journal.installation_directory, journal.owner, settled, message
    )
