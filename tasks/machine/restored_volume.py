"""A volume filled from a backup: new under its name, or beside the present one and then exchanged with it; after a kill it is whole or gone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tasks.adapters.engine.resources import remove_volume
from tasks.adapters.engine.volumes import Volume, create_volume, find_volume, users_of
from tasks.adapters.host.files import exchange_names
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.machine.volume_tar import unpack_in
from tasks.core.errors import BackupError, Refused
from tasks.machine.helper import volume_helper
from tasks.recovery.journalled import journalled
from tasks.run.config import InstallationConfig

KIND = "host-volume"
BEFORE_LABEL = "mailarchiver-backup.before"


def fill_new(config: InstallationConfig, volume: Volume, chunks: Iterable[bytes], helper_image: str) -> list[str]:
    """Make a volume as it was and fill it; where that fails it is gone again. Give what tar said of single files."""
    return _filled(config, volume, volume.name, chunks, helper_image, former=0)


def fill_beside(
    config: InstallationConfig, name: str, aside: str, chunks: Iterable[bytes], helper_image: str
) -> list[str]:
    """Fill a new volume `aside` and exchange the two contents at a stroke: then that holds the former. Give what tar said."""
    present = find_volume(name)
    if present is None or present.place is None or not present.is_plain:
        raise Refused(f"the volume {name} is no directory of this host's Docker any more")
    beside = Volume(aside, "local", {}, {BEFORE_LABEL: name})
    return _filled(config, beside, name, chunks, helper_image, former=present.place.stat().st_ino)


def _filled(
    config: InstallationConfig, volume: Volume, name: str, chunks: Iterable[bytes], helper_image: str, *, former: int
) -> list[str]:
    if find_volume(volume.name) is not None:
        raise Refused(f"the volume {volume.name} was made this very moment by somebody else, and is not filled")
    journal = open_journal(
        KIND, {"volume": volume.name, "former": former},
        installation_id=config.id, installation_directory=config.directory,
    )  # fmt: skip
    whole: list[bool] = []

    def undo() -> None:
        if not whole:
            _remove_unfinished(volume.name, former)

    with journalled(journal, undo):
        create_volume(volume)
        with volume_helper(helper_image, volume.name, installation_id=config.id, directory=config.directory) as helper:
            said = unpack_in(helper, chunks)
        if former:
            _exchange(name, volume.name)
        whole.append(True)
    return said


def _exchange(name: str, aside: str) -> None:
    if running := [each.container for each in users_of({name})[name] if each.runs]:
        raise Refused(f"the volume {name} is in use by {', '.join(running)} by now, and was not replaced")
    exchange_names(_place(name), _place(aside))


def settle(journal: Journal) -> str:
    """Remove the volume that a dead run had not filled to its end; one that holds the former content stays."""
    return _remove_unfinished(str(journal.body["volume"]), int(journal.body["former"]))


def _remove_unfinished(name: str, former: int) -> str:
    found = find_volume(name)
    if found is None:
        return f"no volume {name} was left"
    if former and found.place is not None and found.place.stat().st_ino == former:
        return f"the restore of the volume was done: {name} holds its former content"
    if used := [each.container for each in users_of({name})[name]]:
        return f"the volume {name} was not filled to its end, and is left, for it is in use by {', '.join(used)}"
    remove_volume(name)
    return f"removed the volume {name}, which was not filled to its end"


def _place(name: str) -> Path:
    found = find_volume(name)
    if found is None or found.place is None:
        raise BackupError(f"the volume {name} is gone")
    return found.place
