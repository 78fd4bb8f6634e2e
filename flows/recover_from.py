"""A bare machine: find the newest backup at a place elsewhere, check it, decrypt it, and set the whole stack up from it, in quarantine.

No flow of Prefect's: it takes paths, and a machine that has nothing has no server either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.guided_restore import restore_fresh_host
from tasks.adapters.archive.open_keys import keys_for
from tasks.adapters.archive.opening import opens
from tasks.adapters.engine.client import engine_version
from tasks.adapters.stack.published import application_addresses
from tasks.copies.recovery_place import BackupsThere, RecoveryPlace, backups_at
from tasks.core.archive.names import is_sealed
from tasks.core.archive.origin import Words
from tasks.core.copies.choose import Chosen, choose
from tasks.core.errors import ArchiveDamaged, NoKey, Refused
from tasks.restore.outcome import Restored


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a machine was set up from, why that, what the restore did, and at which addresses the application answers."""

    chosen: Chosen
    restored: Restored
    addresses: tuple[str, ...]


def recover_from(
    place: RecoveryPlace,
    into: Path,
    *,
    backup: str = "latest",
    words: Words,
    trusted_keys: tuple[str, ...] = (),
    project: str | None = None,
    on_choice: Callable[[Chosen], None] = lambda _: None,
) -> Recovered:
    """Set a stack up in an empty directory from a backup at a place, its mail accounts in quarantine, and see it answer.

    Raise Refused, before anything is fetched, where there is no engine or the directory is not empty.
    """
    _require_empty(into)
    engine_version()
    with backups_at(place, trusted_keys) as there:
        chosen = choose(
            there.found, backup, place=place.shown, now=datetime.now(UTC), foreign=words.foreign, partial=there.partial
        )
        on_choice(chosen)
        path = there.paths[chosen.found.name]
        if chosen.found.encrypted and not keys_for(path):
            raise NoKey(
                f"{chosen.found.name} is encrypted, and no key was given", hint="the recovery key: --identity FILE"
            )
        try:
            restored = restore_fresh_host(
                there.config, str(path), into, quarantine=True, words=words, trusted_keys=trusted_keys, project=project
            )
        except NoKey as error:
            error.hint = _other_key_hint(there, chosen)
            raise
        except ArchiveDamaged as error:
            if chosen.older:
                error.hint = f"take the one before it: --backup {chosen.older[0]}"
            raise
    return Recovered(chosen, restored, application_addresses(into))


def _require_empty(into: Path) -> None:
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise Refused(f"{into} is not an empty directory", hint="name a new one: --into DIR")


def _other_key_hint(there: BackupsThere, chosen: Chosen) -> str:
    """Say what a key that does not open the chosen backup is good for."""
    older = next(
        (name for name in chosen.older if is_sealed(there.paths[name].name) and opens(there.paths[name])), None
    )
    if older is not None:
        return f"the key of --identity opens an older one: --backup {older}"
    return "is it the recovery key of this installation? its recovery sheet shows the public half"
