"""Where backups lie that a new machine is set up from: a directory, a place of rclone's, or a target of a settings file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.adapters.archive.identity import keys_of_this_host
from tasks.adapters.archive.ownership import judge_backups
from tasks.adapters.archive.repository import Backup, list_backups
from tasks.adapters.copies.rclone import list_files
from tasks.copies.targets import reach_target, wanted_targets
from tasks.copies.view import target_view
from tasks.core.archive.authenticity import Authenticity, Trust
from tasks.core.copies.choose import Found
from tasks.core.copies.parts import PART, archive_of, stored_backups
from tasks.core.errors import UsageError
from tasks.core.policy.copy_places import remote_problem
from tasks.core.policy.plain_input import shown
from tasks.core.policy.settings import CopyTarget
from tasks.run.config import InstallationConfig, config_at

NAME = "recovery"


@dataclass(frozen=True, slots=True)
class RecoveryPlace:
    """A place with backups: how it is told, and the configuration whose target `target` it is; "" for a directory that is read as it is."""

    shown: str
    config: InstallationConfig
    target: str
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class BackupsThere:
    """What lies at a place: a configuration whose archives are those, each backup with its path, and what is there in part only."""

    config: InstallationConfig
    found: tuple[Found, ...]
    paths: dict[str, Path]
    partial: tuple[str, ...]


def recovery_place(
    named: str,
    into: Path,
    *,
    config: InstallationConfig | None = None,
    rclone_config: Path | None = None,
    project: str | None = None,
) -> RecoveryPlace:
    """Find out what is meant by a word: a target's name of the settings, a place of rclone's (`NAME:path`), else a directory.

    Raise UsageError where it is none of these.
    """
    known = [each.name for each in config.settings.copies] if config is not None else []
    if config is not None and named in known and rclone_config is None:
        return RecoveryPlace(f"target {named}", config, named)
    base = config or config_at(NAME, into, into / "backups", project=project)
    if ":" in named and not named.startswith(("/", ".")) and not Path(named).exists():
        if problem := remote_problem(named):
            told = shown(named) if "=" not in named else "what was given"  # a password may stand in it
            raise UsageError(f"{told} {problem}", hint="such as away:mail-backups, with --rclone-config FILE")
        return RecoveryPlace(named, _with_target(base, named, rclone_config), NAME)
    place = Path(named).expanduser()
    if place.is_file():
        raise UsageError(
            f"{shown(named)} is a file",
            hint=f"one archive is restored by: mailarchiver-backup restore {named} --into DIR",
        )
    if not place.is_dir():
        targets = f"; targets of the settings: {', '.join(known)}" if known else ""
        raise UsageError(
            f"{shown(named)} is no directory of this machine, and no place of rclone's (NAME:path){targets}",
            hint="is its disk mounted? A place elsewhere is written away:mail-backups, with --rclone-config FILE",
        )
    place = place.resolve()
    if any(PART in each.name and archive_of(each.name) for each in place.iterdir()):
        return RecoveryPlace(str(place), _with_target(base, str(place), rclone_config), NAME, place)
    return RecoveryPlace(str(place), base, "", place)


@contextmanager
def backups_at(place: RecoveryPlace, trusted_keys: tuple[str, ...]) -> Iterator[BackupsThere]:
    """Give the backups at a place, judged by the keys that are known here, within the block; they are read where they lie."""
    if not place.target:
        assert place.directory is not None
        yield _there(replace(place.config, elsewhere=place.directory), place.directory, trusted_keys, ())
        return
    with target_view(place.config, place.target) as config:
        seen = {each.name for each in list_backups(config.archives)}
        partial = sorted(_names_at(place) - seen)
        yield _there(config, config.archives, trusted_keys, partial)


def _there(
    config: InstallationConfig, directory: Path, trusted_keys: tuple[str, ...], partial: Sequence[str]
) -> BackupsThere:
    backups = [each for each in list_backups(directory) if not each.subject]
    found = tuple(
        Found(each.name, each.created, each.record, _authenticity(config, each, trusted_keys), each.is_encrypted)
        for each in backups
    )  # fmt: skip
    return BackupsThere(config, found, {each.name: each.path for each in backups}, tuple(partial))


def _authenticity(config: InstallationConfig, backup: Backup, trusted_keys: tuple[str, ...]) -> Authenticity:
    """Judge a backup as one of the installation that it says it is of: which of them is meant is another question."""
    installation = backup.record.manifest.installation if backup.record else config.id
    trusted = (*keys_of_this_host(installation), *config.settings.trusted_keys, *trusted_keys)
    return judge_backups(Trust(installation, trusted=trusted), [backup])[backup.name]


def _names_at(place: RecoveryPlace) -> set[str]:
    (target,) = wanted_targets(place.config, place.target)
    files = list_files(reach_target(place.config, target))
    return {name for name, each in stored_backups(files).items() if each.parts or each.others}


def _with_target(config: InstallationConfig, remote: str, rclone_config: Path | None) -> InstallationConfig:
    changes: dict[str, object] = {"copies": (CopyTarget(name=NAME, remote=remote),)}
    if rclone_config is not None:
        changes["rclone_config"] = rclone_config.absolute()
    return replace(config, settings=config.settings.model_copy(update=changes))
