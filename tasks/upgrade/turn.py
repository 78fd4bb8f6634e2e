"""Turn an installation to another image of PostgreSQL: its data, its compose file and its container, as one act.

A journal written before the first rename makes the whole row one: after a crash it is completed. Directories come first, then files,
then the container: whatever is half done meanwhile, a server finds data that it refuses, or none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from tasks.adapters.host.deferred_signals import signals_deferred
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.own_directories import Identity, exists, identity_of, rename_same, require_absent
from tasks.core.errors import Refused
from tasks.core.stack.beside import Mark, mark_of_directory
from tasks.core.stack.installation import Installation, ServiceState
from tasks.restore.directory_swap import Exchange
from tasks.restore.exchange import exchange
from tasks.run.installations import discover, installation_of
from tasks.step import step
from tasks.upgrade.container import make_container, stop_postgres
from tasks.upgrade.files import FileExchange, beside, exchange_file, exchange_file_back, plan_exchange
from tasks.upgrade.kept_list import KeptUpgrade, remove_upgrade, write_upgrade
from tasks.upgrade.place import data_place

logger = logging.getLogger(__name__)

KIND = "upgrade"


@dataclass(frozen=True, slots=True)
class Turn:
    """What takes whose place; `was` is the state of PostgreSQL before, which its new container gets, and `target` where its data was mounted."""

    at: str
    from_image: str
    to_image: str
    data: Exchange
    files: tuple[FileExchange, ...]
    undone: bool
    was: ServiceState
    target: str

    @property
    def kept(self) -> KeptUpgrade:
        """Say what will have been put aside."""
        mark = mark_of_directory(self.data.aside, Path(self.data.current))
        if mark is None or self.data.current_is is None:
            raise Refused(f"{self.data.aside} is no name that an upgrade gives to what it puts aside")
        files = {each.current: each.current_sha256 for each in self.files}
        brought = {each.current: each.incoming_sha256 for each in self.files}
        return KeptUpgrade(
            mark, self.at, self.from_image, self.to_image, self.data.current_is, files, brought, self.target
        )

    @property
    def brings(self) -> Mark | None:
        """Give the mark of what comes into place."""
        return mark_of_directory(self.data.incoming, Path(self.data.current))


def plan_turn(
    stack: Installation, mark: Mark, incoming: Mark, files: Sequence[Path], *, from_image: str, to_image: str, now: datetime, was: ServiceState
) -> Turn:  # fmt: skip
    """Look at what bears the mark `incoming`, and say what it is to replace; what it replaces will bear `mark`."""
    place = data_place(stack)
    data = Exchange(
        str(place), str(incoming.directory(place)), str(mark.directory(place)),
        incoming_is=identity_of(incoming.directory(place)), current_is=identity_of(place),
    )  # fmt: skip
    changes = tuple(plan_exchange(each, beside(each, incoming), mark) for each in files)
    at = now.astimezone(UTC).isoformat(timespec="microseconds")
    return Turn(at, from_image, to_image, data, changes, mark.word == "undone", was, stack.data_mount.target)


@step(name="turn to other image", retries=0)
def take_turn(stack: Installation, turn: Turn) -> Installation:
    """Exchange data and files, make PostgreSQL's container anew and start it if it ran; return the installation as it is then.

    Signals are heard afterwards: in between PostgreSQL has no container that a loan could give back. Where something
    refuses, all is as it was before the error is raised; after a crash `recover` completes it.
    """
    require_computed(stack, turn)
    require_absent([Path(turn.data.aside), *(Path(each.aside) for each in turn.files)])
    body = {"project": stack.project, **asdict(turn)}
    journal = open_journal(KIND, body, installation_id=stack.id, installation_directory=stack.directory)
    try:
        with signals_deferred():
            try:
                complete(stack, turn)
            except Exception:
                _undo(stack, turn)
                journal.remove()
                raise
            journal.remove()
    finally:
        journal.abandon()
    return replace(discover(stack.directory, installation_id=stack.id, project=stack.project), limits=stack.limits)


def complete(stack: Installation, turn: Turn) -> None:
    """Do all that is not done yet; the list of what is kept comes first, and what came into place leaves it last."""
    write_upgrade(stack.directory, turn.kept)
    stop_postgres(stack)
    data = turn.data
    exchange(
        Path(data.current), Path(data.incoming), Path(data.aside), incoming_is=data.incoming_is, current_is=data.current_is
    )  # fmt: skip
    for each in turn.files:
        exchange_file(each)
    make_container(stack, turn.was)
    if turn.brings is not None:
        remove_upgrade(stack.directory, turn.brings)


def settle(journal: Journal) -> str:
    """Complete an upgrade, or its rollback, that a dead run had proven and begun."""
    if not journal.installation_directory.is_dir():
        return f"{journal.installation_directory} is gone, and what was to be upgraded in it"
    stack = installation_of(journal)
    turn = _read(journal)
    require_computed(stack, turn)
    if not exists(Path(turn.data.incoming)) and not exists(Path(turn.data.aside)):
        remove_upgrade(stack.directory, turn.kept.mark)
        return f"nothing was exchanged, and {turn.data.incoming} is gone; {turn.data.current} is as it was"
    complete(stack, turn)
    return (
        f"completed the change from {turn.from_image} to {turn.to_image}; the former data is kept as {turn.data.aside}"
    )


def require_computed(stack: Installation, turn: Turn) -> None:
    """Raise Refused where a path is not what is computed from the installation: then it is nothing of ours."""
    place, known = data_place(stack), {*stack.compose_files, *(each.path for each in stack.config_files)}
    mark, incoming = (mark_of_directory(each, place) for each in (turn.data.aside, turn.data.incoming))
    fits = mark is not None and incoming is not None and turn.data.current == str(place)
    for each in turn.files if mark and incoming else ():
        file = Path(each.current)
        fits = fits and file in known
        fits = fits and each.aside == str(beside(file, cast(Mark, mark)))
        fits = fits and each.incoming == str(beside(file, cast(Mark, incoming)))
    if not fits:
        raise Refused(
            f"{turn.data.aside}: this is not what an upgrade of {stack.id} writes (beside {place}), so nothing is done with it",
            hint="has the compose file changed since? then give it back what it said, and try again",
        )


def _read(journal: Journal) -> Turn:
    body = journal.body
    data = body["data"]
    return Turn(
        str(body["at"]), str(body["from_image"]), str(body["to_image"]),
        Exchange(
            data["current"], data["incoming"], data["aside"],
            Identity.read(data["incoming_is"]), Identity.read(data["current_is"]),
        ),
        tuple(FileExchange(**each) for each in body["files"]), bool(body["undone"]), body["was"], body["target"],
    )  # fmt: skip


def _undo(stack: Installation, turn: Turn) -> None:
    """Take back what was done of a row that could not be completed, and let PostgreSQL be as it was."""
    stop_postgres(stack)
    for each in reversed(turn.files):
        exchange_file_back(each)
    current, incoming, aside = Path(turn.data.current), Path(turn.data.incoming), Path(turn.data.aside)
    if exists(aside) and not exists(incoming) and exists(current):
        rename_same(current, incoming, turn.data.incoming_is)
    if exists(aside) and not exists(current):
        rename_same(aside, current, turn.data.current_is)
    make_container(stack, turn.was)
    remove_upgrade(stack.directory, turn.kept.mark)
