"""The way back from an upgrade, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.own_directories import Identity, exists, remove_same, require_same
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.beside import Mark, stamp_of
from tasks.core.stack.installation import Installation
from tasks.recovery.stopped_services import stopped
from tasks.restore.database_restore import running_postgres
from tasks.restore.kept_list import entries
from tasks.restore.probe import probe_stack, put_back_also_where_it_does_not_answer
from tasks.restore.rollback import RolledBack
from tasks.run.config import InstallationConfig
from tasks.run.installations import installation_of
from tasks.step import step
from tasks.upgrade.application_back import put_application_back
from tasks.upgrade.data_turn import plan_data
from tasks.upgrade.files import beside, remove_file
from tasks.upgrade.files_back import require_files, take_later_edits
from tasks.upgrade.kept_list import KeptUpgrade, kept_upgrades, remove_upgrade, upgrade_exists
from tasks.upgrade.place import data_place
from tasks.upgrade.turn import plan_turn, take_turn

DROP_KIND = "upgrade-drop"


def upgrade_to_take_back(stack: Installation) -> KeptUpgrade | None:
    """Give the last upgrade, where nothing that could be taken back came after it."""
    upgrades = [each for each in kept_upgrades(stack.directory) if each.mark.word == "before"]
    restores = [*entries(stack.directory, "database"), *entries(stack.directory, "directories")]
    later = [each.at for each in restores if each.mark.word == "before"]
    if not upgrades or any(datetime.fromisoformat(at) > datetime.fromisoformat(upgrades[-1].at) for at in later):
        return None
    return upgrades[-1]


def put_back_upgrade(
    config: InstallationConfig, stack: Installation, kept: KeptUpgrade, *, now: datetime
) -> RolledBack:
    """Bring back the data, the files and the image from before an upgrade, and see the stack answer if it ran.

    Mail that came since is in what is kept instead.
    """
    if kept.application is not None:
        with running_postgres(stack) as stack:
            return put_application_back(config, stack, kept, kept.application, now=now)
    require_same(kept.mark.directory(data_place(stack)), kept.data)
    require_files(kept)
    take_later_edits(stack, kept, stack.postgres.name)
    place = data_place(stack)
    with stopped(stack, [stack.application], reason="rollback of an upgrade") as loan:
        turned = turn_back(stack, kept, now=now)
        loan.start_all()
        with put_back_also_where_it_does_not_answer(turned):
            probe_stack(stack, start=False)
    return RolledBack(kept.to_image, str(place), turned, "upgrade to")


def turn_back(stack: Installation, kept: KeptUpgrade, *, now: datetime) -> str:
    """Exchange what is in place for what an upgrade put aside; return what is kept instead."""
    data = plan_data(stack, Mark("undone", stamp_of(now)), kept.mark)
    files = [Path(each) for each in kept.files]
    turn = plan_turn(stack, data, files, from_image=kept.to_image, to_image=kept.from_image, now=now)
    take_turn(stack, turn)
    return turn.content.aside


@step(name="drop what upgrades kept", retries=0)
def drop_kept_upgrades(stack: Installation) -> list[str]:
    """Remove what upgrades and their rollbacks have put aside; return the names. `recover` removes the rest after a crash."""
    dropped = []
    for each in kept_upgrades(stack.directory):
        aside = _aside(stack, each.mark, each.data)
        if each.data is not None and exists(Path(aside)):
            require_same(Path(aside), each.data)
        files = [{"path": name, "sha256": sha256} for name, sha256 in each.files.items()]
        body = {
            "project": stack.project,
            "mark": asdict(each.mark),
            "data": asdict(each.data) if each.data else None,
            "files": files,
        }
        journal = open_journal(DROP_KIND, body, installation_id=stack.id, installation_directory=stack.directory)
        try:
            remove_upgrade(stack.directory, each.mark)
            try:
                _drop(stack, each.mark, each.data, each.files)
            except BackupError:
                journal.remove()  # what is refused now will be refused tomorrow: the error says what is left
                raise
            journal.remove()
        finally:
            journal.abandon()
        dropped += [aside] if each.data is not None else list(_files_of(stack, each))
    return dropped


def settle_drop(journal: Journal) -> str:
    """Remove the rest of what a dead run was removing; where it is still in the list, nothing had begun.

    Of the application's upgrade the database is gone by then: that was dropped before.
    """
    stack = installation_of(journal)
    mark = Mark(journal.body["mark"]["word"], journal.body["mark"]["stamp"])
    data = Identity.read(journal.body["data"])
    aside = _aside(stack, mark, data)
    if data is not None and upgrade_exists(stack.directory, mark):
        return f"the commit had not begun: {aside} is still kept"
    try:
        files = {each["path"]: each["sha256"] for each in journal.body["files"]}
        _drop(stack, mark, data, files)
        remove_upgrade(stack.directory, mark)
    except BackupError as error:
        return f"the commit had begun, but something is left to be removed by hand: {error}"
    return f"completed the commit: {aside} is removed"


def _drop(stack: Installation, mark: Mark, data: Identity | None, files: Mapping[str, str]) -> None:
    if mark.word not in ("before", "undone") or len(mark.stamp) != 15:
        raise Refused(f"{mark} is no mark of what is kept")
    if data is not None:  # the application's data is a database, which leaves with those that restores keep
        remove_same(mark.directory(data_place(stack)), data)
    known = {str(each.path) for each in stack.config_files} | {str(each) for each in stack.compose_files}
    for name, sha256 in files.items():
        if name in known:
            remove_file(beside(Path(name), mark), sha256)


def _aside(stack: Installation, mark: Mark, data: Identity | None) -> str:
    """Name what an upgrade put aside, for people too."""
    return str(mark.directory(data_place(stack))) if data is not None else mark.database(stack.database.name)


def _files_of(stack: Installation, kept: KeptUpgrade) -> list[str]:
    return [str(beside(Path(name), kept.mark)) for name in kept.files]
