"""The way back from an upgrade, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from tasks.adapters.host.files import write_atomically
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.own_directories import Identity, exists, remove_same, require_same
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.beside import Mark, stamp_of
from tasks.core.stack.installation import Installation
from tasks.recovery.stopped_services import stopped
from tasks.restore.kept_list import entries
from tasks.restore.probe import probe_stack, put_back_also_where_it_does_not_answer
from tasks.restore.rollback import RolledBack
from tasks.run.installations import installation_of
from tasks.step import step
from tasks.upgrade.configuration import new_configuration
from tasks.upgrade.files import beside, digest_of, remove_file
from tasks.upgrade.kept_list import KeptUpgrade, kept_upgrades, remove_upgrade, upgrade_exists, write_upgrade
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


def put_back_upgrade(stack: Installation, kept: KeptUpgrade, *, now: datetime) -> RolledBack:
    """Bring back the data, the files and the image from before an upgrade, and see the stack answer if it ran.

    Mail that came since is in what is kept instead.
    """
    require_kept(stack, kept)
    _take_later_edits(stack, kept)
    place = data_place(stack)
    with stopped(stack, [stack.application], reason="rollback of an upgrade") as loan:
        turned = turn_back(stack, kept, now=now)
        loan.start_all()
        with put_back_also_where_it_does_not_answer(turned):
            probe_stack(stack, start=False)
    return RolledBack(kept.to_image, str(place), turned, "upgrade to")


def turn_back(stack: Installation, kept: KeptUpgrade, *, now: datetime) -> str:
    """Exchange what is in place for what an upgrade put aside; return what is kept instead."""
    mark = Mark("undone", stamp_of(now))
    turn = plan_turn(
        stack, mark, kept.mark, [Path(each) for each in kept.files], from_image=kept.to_image, to_image=kept.from_image, now=now,
        was=stack.postgres.state,
    )  # fmt: skip
    take_turn(stack, turn)
    return turn.data.aside


def require_kept(stack: Installation, kept: KeptUpgrade) -> None:
    """Raise Refused, before anything is stopped, where what an upgrade put aside is no longer all there."""
    require_same(kept.mark.directory(data_place(stack)), kept.data)
    for name, sha256 in kept.files.items():
        place = beside(Path(name), kept.mark)
        if not exists(place) or digest_of(place) != sha256:
            raise Refused(
                f"{place} is gone or changed, which an upgrade had kept",
                hint=f"bring it back; or write into {name} what it was, with the image {kept.from_image}",
            )


def _take_later_edits(stack: Installation, kept: KeptUpgrade) -> None:
    """Where a file was edited since the upgrade, go back to that text with the former image in it."""
    edited = [Path(name) for name, sha256 in kept.brought.items() if digest_of(Path(name)) != sha256]
    if not edited:
        return
    texts = {each.path: each for each in new_configuration(stack, kept.from_image, target=kept.target)}
    for path in edited:
        if path not in texts:
            raise Refused(
                f"{path} was edited since the upgrade, and how it said {kept.to_image} is gone",
                hint=f"bring back what the upgrade wrote there, or see {beside(path, kept.mark)}",
            )
        write_atomically(beside(path, kept.mark), texts[path].text.encode(), like=path.stat())
    now = {name: digest_of(beside(Path(name), kept.mark)) for name in kept.files}
    write_upgrade(stack.directory, replace(kept, files=now))


@step(name="drop what upgrades kept", retries=0)
def drop_kept_upgrades(stack: Installation) -> list[str]:
    """Remove what upgrades and their rollbacks have put aside; return the names. `recover` removes the rest after a crash."""
    place = data_place(stack) if (kept := kept_upgrades(stack.directory)) else Path()
    dropped = []
    for each in kept:
        aside = each.mark.directory(place)
        if exists(aside):
            require_same(aside, each.data)
        files = [{"path": name, "sha256": sha256} for name, sha256 in each.files.items()]
        body = {"project": stack.project, "mark": asdict(each.mark), "data": asdict(each.data), "files": files}
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
        dropped.append(str(aside))
    return dropped


def settle_drop(journal: Journal) -> str:
    """Remove the rest of what a dead run was removing; where it is still in the list, nothing had begun."""
    stack = installation_of(journal)
    mark = Mark(journal.body["mark"]["word"], journal.body["mark"]["stamp"])
    aside = mark.directory(data_place(stack))
    if upgrade_exists(stack.directory, mark):
        return f"the commit had not begun: {aside} is still kept"
    try:
        files = {each["path"]: each["sha256"] for each in journal.body["files"]}
        _drop(stack, mark, Identity.read(journal.body["data"]), files)
    except BackupError as error:
        return f"the commit had begun, but something is left to be removed by hand: {error}"
    return f"completed the commit: {aside} is removed"


def _drop(stack: Installation, mark: Mark, data: Identity | None, files: Mapping[str, str]) -> None:
    if mark.word not in ("before", "undone") or len(mark.stamp) != 15:
        raise Refused(f"{mark} is no mark of what is kept")
    remove_same(mark.directory(data_place(stack)), data)
    known = {str(each.path) for each in stack.config_files} | {str(each) for each in stack.compose_files}
    for name, sha256 in files.items():
        if name in known:
            remove_file(beside(Path(name), mark), sha256)
