"""What an upgrade of PostgreSQL exchanges besides files and container: the mount that holds the data, as a whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.adapters.host.own_directories import Identity, exists, identity_of, rename_same, require_absent
from tasks.core.errors import Refused
from tasks.core.stack.beside import Mark, mark_of_directory
from tasks.core.stack.installation import Installation, Service
from tasks.restore.directory_swap import Exchange
from tasks.restore.exchange import exchange
from tasks.upgrade.place import data_place


@dataclass(frozen=True, slots=True)
class DataTurn:
    """One data directory that takes another's place; `target` is where PostgreSQL's container has it mounted."""

    exchange: Exchange
    target: str

    KIND = "upgrade"

    @classmethod
    def read(cls, body: dict[str, Any]) -> DataTurn:
        """Read what `body` wrote."""
        data = body["data"]
        identities = Identity.read(data["incoming_is"]), Identity.read(data["current_is"])
        return cls(Exchange(data["current"], data["incoming"], data["aside"], *identities), str(body["target"]))

    def body(self) -> dict[str, Any]:
        """Give what a journal says of it."""
        return {"data": asdict(self.exchange), "target": self.target}

    @property
    def aside(self) -> str:
        """Name what will have been put aside."""
        return self.exchange.aside

    @property
    def mark(self) -> Mark:
        """Give the mark of what will have been put aside; raise Refused where it bears none of ours."""
        mark = mark_of_directory(self.exchange.aside, Path(self.exchange.current))
        if mark is None:
            raise Refused(f"{self.exchange.aside} is no name that an upgrade gives to what it puts aside")
        return mark

    @property
    def incoming_mark(self) -> Mark | None:
        """Give the mark of what comes into place."""
        return mark_of_directory(self.exchange.incoming, Path(self.exchange.current))

    def service(self, stack: Installation) -> Service:
        """Give the service whose container is made anew."""
        return stack.postgres

    def fits(self, stack: Installation) -> bool:
        """Tell whether all paths are what is computed from the installation."""
        place = data_place(stack)
        marks = (mark_of_directory(each, place) for each in (self.exchange.aside, self.exchange.incoming))
        return all(marks) and self.exchange.current == str(place)

    def require_free(self, stack: Installation) -> None:
        """Raise Refused where something bears the name already that is to be put aside."""
        require_absent([Path(self.exchange.aside)])

    def is_void(self, stack: Installation) -> bool:
        """Tell whether nothing was exchanged, and nothing is left to come into place."""
        return not exists(Path(self.exchange.incoming)) and not exists(Path(self.exchange.aside))

    def put(self, stack: Installation) -> None:
        """Exchange the directories, as far as that is not done yet; no server runs on either."""
        each = self.exchange
        exchange(
            Path(each.current), Path(each.incoming), Path(each.aside), incoming_is=each.incoming_is, current_is=each.current_is
        )  # fmt: skip

    def strike_out(self, stack: Installation) -> None:
        """Nothing else lists directories that upgrades keep."""

    def forget(self, stack: Installation) -> None:
        """Nothing else lists directories that upgrades keep."""

    def ready_image(self, name: str, *, back: bool = False) -> None:
        """PostgreSQL's images are called by names that stand for them alone."""

    def take_back(self, stack: Installation) -> None:
        """Take the exchange back, as far as it was done."""
        each = self.exchange
        current, incoming, aside = Path(each.current), Path(each.incoming), Path(each.aside)
        if exists(aside) and not exists(incoming) and exists(current):
            rename_same(current, incoming, each.incoming_is)
        if exists(aside) and not exists(current):
            rename_same(aside, current, each.current_is)


def plan_data(stack: Installation, mark: Mark, incoming: Mark) -> DataTurn:
    """Look at what bears the mark `incoming`, and say what it is to replace; what it replaces will bear `mark`."""
    place = data_place(stack)
    data = Exchange(
        str(place), str(incoming.directory(place)), str(mark.directory(place)),
        incoming_is=identity_of(incoming.directory(place)), current_is=identity_of(place),
    )  # fmt: skip
    return DataTurn(data, stack.data_mount.target)
