"""Turn an installation to another image: its content, its compose file and a container, as one act.

A journal written before the first step makes the whole row one: after a crash it is completed. The content comes first (PostgreSQL's
data directory, or the application's database), then files, then the container: whatever is half done meanwhile, a server
finds data that it refuses, or none, and the application does not run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.host.deferred_signals import signals_deferred
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.host.own_directories import require_absent
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation, ServiceState
from tasks.run.installations import discover, installation_of
from tasks.step import step
from tasks.upgrade.container import make_container, stop_service
from tasks.upgrade.data_turn import DataTurn
from tasks.upgrade.database_turn import DatabaseTurn
from tasks.upgrade.files import FileExchange, beside, exchange_file, exchange_file_back, plan_exchange
from tasks.upgrade.kept_list import KeptApplication, KeptUpgrade, remove_upgrade, write_upgrade

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """What takes whose place; `was` is the state of the service before, which its new container gets.

    `application` is what is to be known of the application's version that goes, None for PostgreSQL.
    """

    at: str
    from_image: str
    to_image: str
    content: DataTurn | DatabaseTurn
    files: tuple[FileExchange, ...]
    undone: bool
    was: ServiceState
    application: KeptApplication | None = None

    @property
    def kept(self) -> KeptUpgrade:
        """Say what will have been put aside."""
        data = self.content.exchange.current_is if isinstance(self.content, DataTurn) else None
        target = self.content.target if isinstance(self.content, DataTurn) else ""
        files = {each.current: each.current_sha256 for each in self.files}
        brought = {each.current: each.incoming_sha256 for each in self.files}
        return KeptUpgrade(
            self.content.mark, self.at, self.from_image, self.to_image, data, files, brought, target, self.application
        )  # fmt: skip


def plan_turn(
    stack: Installation, content: DataTurn | DatabaseTurn, files: Sequence[Path], *, from_image: str, to_image: str, now: datetime,
    was: ServiceState | None = None, application: KeptApplication | None = None,
) -> Turn:  # fmt: skip
    """Look at the files that come with a content, and say what is to be exchanged; all that goes will bear one mark.

    The new container gets the state of the present one, or `was`.
    """
    mark, incoming = content.mark, content.incoming_mark
    if incoming is None:
        raise Refused(f"what is to come beside {content.aside} bears no mark of ours")
    changes = tuple(plan_exchange(each, beside(each, incoming), mark) for each in files)
    at = now.astimezone(UTC).isoformat(timespec="microseconds")
    state = was or content.service(stack).state
    return Turn(at, from_image, to_image, content, changes, mark.word == "undone", state, application)


@step(name="turn to other image", retries=0)
def take_turn(stack: Installation, turn: Turn) -> Installation:
    """Exchange content and files, make the service's container anew and start it if it ran; return the installation as it is then.

    Signals are heard afterwards: in between the service has no container that a loan could give back. Where something
    refuses, all is as it was before the error is raised; after a crash `recover` completes it.
    """
    require_computed(stack, turn)
    turn.content.require_free(stack)
    require_absent([Path(each.aside) for each in turn.files])
    journal = open_journal(
        turn.content.KIND, _body(stack, turn), installation_id=stack.id, installation_directory=stack.directory
    )
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
    service = turn.content.service(stack)
    write_upgrade(stack.directory, turn.kept)
    stop_service(stack, service)
    turn.content.put(stack)
    for each in turn.files:
        exchange_file(each)
    turn.content.ready_image(turn.to_image)
    make_container(stack, service, turn.was)
    turn.content.strike_out(stack)
    if turn.content.incoming_mark is not None:
        remove_upgrade(stack.directory, turn.content.incoming_mark)


def settle(journal: Journal) -> str:
    """Complete an upgrade, or its rollback, that a dead run had proven and begun."""
    if not journal.installation_directory.is_dir():
        return f"{journal.installation_directory} is gone, and what was to be upgraded in it"
    stack = installation_of(journal)
    turn = _read(journal)
    require_computed(stack, turn)
    if turn.content.is_void(stack):
        turn.content.forget(stack)
        remove_upgrade(stack.directory, turn.kept.mark)
        return f"nothing was exchanged, and what was to come is gone; {stack.id} is as it was"
    complete(stack, turn)
    return f"completed the change from {turn.from_image} to {turn.to_image}; the former data is kept as {turn.content.aside}"


def require_computed(stack: Installation, turn: Turn) -> None:
    """Raise Refused where a path or a name is not what is computed from the installation: then it is nothing of ours."""
    known = {*stack.compose_files, *(each.path for each in stack.config_files)}
    fits = turn.content.fits(stack)
    mark, incoming = (turn.content.mark, turn.content.incoming_mark) if fits else (None, None)
    for each in turn.files if mark and incoming else ():
        file = Path(each.current)
        fits = fits and file in known
        fits = fits and mark is not None and each.aside == str(beside(file, mark))
        fits = fits and incoming is not None and each.incoming == str(beside(file, incoming))
    if not fits:
        raise Refused(
            f"{turn.content.aside}: this is not what an upgrade of {stack.id} writes, so nothing is done with it",
            hint="has the compose file changed since? then give it back what it said, and try again",
        )


def _body(stack: Installation, turn: Turn) -> dict[str, object]:
    body = {
        "project": stack.project, "at": turn.at, "from_image": turn.from_image, "to_image": turn.to_image, **turn.content.body(),
        "files": [asdict(each) for each in turn.files], "undone": turn.undone, "was": turn.was,
    }  # fmt: skip
    return body if turn.application is None else {**body, "application": asdict(turn.application)}


def _read(journal: Journal) -> Turn:
    body = dict(journal.body)
    content = DataTurn.read(body) if journal.kind == DataTurn.KIND else DatabaseTurn.read(body)
    said = body.get("application")
    return Turn(
        str(body["at"]), str(body["from_image"]), str(body["to_image"]), content, tuple(FileExchange(**each) for each in body["files"]),
        bool(body["undone"]), body["was"], KeptApplication.read(said) if said else None,
    )  # fmt: skip


def _undo(stack: Installation, turn: Turn) -> None:
    """Take back what was done of a row that could not be completed, and let the service be as it was."""
    service = turn.content.service(stack)
    stop_service(stack, service)
    for each in reversed(turn.files):
        exchange_file_back(each)
    turn.content.take_back(stack)
    turn.content.ready_image(turn.from_image, back=True)
    make_container(stack, service, turn.was)
    remove_upgrade(stack.directory, turn.kept.mark)
