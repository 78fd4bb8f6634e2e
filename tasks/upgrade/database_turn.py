"""What an upgrade of the application exchanges besides files and container: its database, on a server that goes on.

On the way there the current database stays, for the new version to migrate, and the copy that was made of it is kept. On the way
back that copy takes its place again, and the migrated one is kept instead. Databases are known by their numbers, which no
rename changes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tasks.adapters.engine import resources
from tasks.adapters.host.own_directories import Identity
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.facts import database_comment
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, Session, session
from tasks.core.errors import Refused
from tasks.core.stack.beside import Mark, mark_of_database
from tasks.core.stack.installation import Installation, Service
from tasks.restore.database_beside import COMMENT
from tasks.restore.database_swap import write_kept
from tasks.restore.kept_database import KEPT, Kept, require_computed, server_for
from tasks.restore.kept_list import remove_entry


@dataclass(frozen=True, slots=True)
class DatabaseTurn:
    """What will have been kept, and the database that it was (there) or that takes its place (back), with its comment.

    `image_id` is the image that the application runs afterwards, `former_image_id` the one before.
    """

    kept: Kept
    incoming: str
    number: int
    comment: str | None
    image_id: str
    former_image_id: str

    KIND = "application-upgrade"

    @classmethod
    def read(cls, body: dict[str, Any]) -> DatabaseTurn:
        """Read what `body` wrote."""
        said = body["database"]
        kept = {**said["kept"], "keys_identity": Identity.read(said["kept"].get("keys_identity"))}
        return cls(**{**said, "kept": Kept(**kept)})

    def body(self) -> dict[str, Any]:
        """Give what a journal says of it."""
        return {"database": asdict(self)}

    @property
    def aside(self) -> str:
        """Name what will have been kept."""
        return self.kept.database

    @property
    def mark(self) -> Mark:
        """Give the mark of what will have been kept."""
        return self.kept.mark

    @property
    def incoming_mark(self) -> Mark | None:
        """Give the mark of what is kept, or comes into place."""
        return mark_of_database(self.incoming, self.kept.of)

    def service(self, stack: Installation) -> Service:
        """Give the service whose container is made anew."""
        return stack.application

    def fits(self, stack: Installation) -> bool:
        """Tell whether all names are what is computed from the installation."""
        try:
            require_computed(stack, self.kept, self.incoming)
        except Refused:
            return False
        return True

    def require_free(self, stack: Installation) -> None:
        """Raise Refused where another database bears the name already that is to be kept."""
        with server_of(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="upgrade") as opened:
            if databases.database_exists(opened, self.kept.database):
                raise Refused(f"there is a database {self.kept.database} already", hint="try again in a second")

    def is_void(self, stack: Installation) -> bool:
        """Tell whether what was to be kept, or to come into place, is gone: then nothing was exchanged."""
        with server_for(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="recover") as opened:
            return databases.database_numbered(opened, self.number) is None

    def put(self, stack: Installation) -> None:
        """Keep the copy, or bring the kept database back, as far as that is not done yet; the application does not run."""
        write_kept(stack, self.kept)
        with server_for(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="upgrade") as opened:
            name = self._name(opened)
            if self.kept.undone and name != self.kept.of:
                comments = {self.kept.database: self._told(), self.kept.of: self.comment}
                databases.swap_databases(
                    opened, current=self.kept.of, replacement=name, aside=self.kept.database, comments=comments
                )
            elif not self.kept.undone and name != self.kept.database:
                databases.rename_database(opened, name, self.kept.database, self._told())

    def strike_out(self, stack: Installation) -> None:
        """Strike what was brought back out of the list of kept databases."""
        if self.incoming_mark is not None:
            remove_entry(stack.directory, "database", self.incoming_mark)

    def forget(self, stack: Installation) -> None:
        """Strike what was not kept out of the list of kept databases."""
        remove_entry(stack.directory, "database", self.kept.mark)

    def ready_image(self, name: str, *, back: bool = False) -> None:
        """Let a name stand for its image on this host: a tag such as `latest` may stand for another by now."""
        resources.tag_image(self.former_image_id if back else self.image_id, name)

    def take_back(self, stack: Installation) -> None:
        """Take it back, as far as it was done."""
        with server_for(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="upgrade") as opened:
            name = self._name(opened)
            if self.kept.undone and name == self.kept.of:
                former: dict[str, str | None] = {self.incoming: self._told(), self.kept.of: self.kept.comment}
                databases.swap_databases(
                    opened, current=self.kept.of, replacement=self.kept.database, aside=self.incoming, comments=former
                )
            elif not self.kept.undone and name == self.kept.database:
                databases.rename_database(opened, name, self.incoming, COMMENT)
        remove_entry(stack.directory, "database", self.kept.mark)

    def _name(self, opened: Session) -> str:
        found = databases.database_numbered(opened, self.number)
        if found is None:
            raise Refused(
                f"database {self.incoming} is gone, which was to be {'brought back' if self.kept.undone else 'kept'}",
                hint="nothing else was exchanged; was it dropped by hand?",
            )
        return found.name

    def _told(self) -> str:
        """Say for people, in a database's comment, what it is: nothing is done because a comment says so."""
        told = {"of": self.kept.of, "at": self.kept.at, "backup": self.kept.backup, "undone": self.kept.undone}
        return KEPT + json.dumps(told)


def plan_keeping(stack: Installation, copy: Mark, *, image_id: str, backup: str, now: datetime) -> DatabaseTurn:
    """Say how the copy of the current database that bears the mark `copy` is to be kept."""
    of = stack.database.name
    incoming = copy.database(of)
    with server_of(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="upgrade") as opened:
        number, comment = _numbered(opened, incoming), database_comment(opened, of)
    kept = Kept(Mark("before", copy.stamp).database(of), of, _at(now), backup, "", "", comment, number=number)
    return DatabaseTurn(kept, incoming, number, comment, image_id, stack.application.image_id)


def plan_return(stack: Installation, kept: Kept, mark: Mark, *, image_id: str, now: datetime) -> DatabaseTurn:
    """Say how a kept database comes back; the current one will bear `mark`."""
    of = stack.database.name
    with server_of(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="upgrade") as opened:
        current, comment = _numbered(opened, of), database_comment(opened, of)
    undone = replace(
        kept, database=mark.database(of), at=_at(now), comment=comment, undone=True, number=current, keys="", current_keys=""
    )  # fmt: skip
    return DatabaseTurn(undone, kept.database, kept.number, kept.comment, image_id, stack.application.image_id)


def _numbered(opened: Session, name: str) -> int:
    entry = databases.database_entry(opened, name)
    if entry is None:
        raise Refused(f"there is no database {name}", hint="was it dropped or renamed by hand?")
    return entry.number


def _at(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="microseconds")
