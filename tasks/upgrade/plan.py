"""The plan of an upgrade: what changes, what the rehearsal showed, and how long the stack will be down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tasks.adapters.postgres.facts import server_major
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session
from tasks.core.stack.compose_edit import Text
from tasks.core.stack.installation import Installation
from tasks.core.stack.upgrade import require_image_name
from tasks.core.units import duration_text
from tasks.restore.directory_beside import platform_of
from tasks.surroundings import surroundings
from tasks.upgrade.check import check_upgrade
from tasks.upgrade.configuration import described, differences_of, new_configuration, plan_page, plan_question
from tasks.upgrade.new_image import NewImage, look_at_image


@dataclass(frozen=True, slots=True)
class Ahead:
    """What an upgrade would be: the new image, the files that change, and what is to be known."""

    new: NewImage
    old_image: str
    old_major: int
    files: tuple[Text, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What an upgrade on staging showed: of which backup, and how long dump, first start and load took."""

    at: datetime
    backup: str
    image_id: str
    old_image_id: str
    dump_seconds: float
    start_seconds: float
    load_seconds: float
    rows: int
    tables: int
    attachments: int

    @property
    def downtime_seconds(self) -> float:
        """Give how long the stack will be down, by what was measured."""
        return self.dump_seconds + self.start_seconds + self.load_seconds


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """What would be done, and what of it was rehearsed."""

    installation: str
    directory: str
    ahead: Ahead
    rehearsal: Rehearsal
    configuration: Mapping[str, str]

    def __str__(self) -> str:
        """Tell the plan as a short Markdown page, which a terminal shows as well."""
        rows = [
            ("Upgrade", self._versions),
            ("Rehearsed", f"{self.rehearsal.at:%Y-%m-%d %H:%M} UTC on isolated staging with {self.rehearsal.backup}: {self._proven}"),
            ("Downtime", f"about {duration_text(self.rehearsal.downtime_seconds)}, as measured: dump {duration_text(self.rehearsal.dump_seconds)}, new server {duration_text(self.rehearsal.start_seconds)}, load and proof {duration_text(self.rehearsal.load_seconds)}"),
            ("Way back", "old data, image and compose file are kept until `commit`; `rollback` brings them back, without the mail that came since"),
            *(("Note", note) for note in self.ahead.notes),
        ]  # fmt: skip
        return plan_page(rows, self.configuration)

    @property
    def image(self) -> str:
        """Name the image that is upgraded to."""
        return self.ahead.new.name

    @property
    def question(self) -> str:
        """Ask for approval in few lines."""
        return plan_question(self.installation, self._versions, self._proven, self.rehearsal.downtime_seconds)

    @property
    def _versions(self) -> str:
        return f"PostgreSQL {self.ahead.old_major} ({self.ahead.old_image}) to {self.ahead.new.platform.major} ({self.ahead.new.name})"

    @property
    def _proven(self) -> str:
        found = self.rehearsal
        return f"{found.rows:,} rows in {found.tables} tables equal, {found.attachments:,} attachments right, the application answered"


def look_ahead(stack: Installation, image: str) -> Ahead:
    """Look at the image, the installation and its compose file, and say what an upgrade would be; raise Refused where it must not be."""
    require_image_name(image, current=stack.postgres.image, anywhere=surroundings().takes_paths)
    service = described(stack, stack.postgres)
    new = look_at_image(stack, image, pgdata_set=service.environment.get("PGDATA", ""))
    notes = check_upgrade(stack, new, platform_of(stack))
    files = new_configuration(stack, stack.postgres.name, image, target=new.layout.target)
    with server_of(stack) as server, session(server, MAINTENANCE_DATABASE, purpose="check") as opened:
        major = server_major(opened)
    return Ahead(new, stack.postgres.image, major, files, notes)


def plan_of(stack: Installation, ahead: Ahead, rehearsal: Rehearsal) -> UpgradePlan:
    """Put together what is to be approved."""
    return UpgradePlan(stack.id, str(stack.directory), ahead, rehearsal, differences_of(ahead.files))
