"""The plan of an application's upgrade: what changes, what the rehearsal showed, and how long the application will be down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tasks.core.errors import Refused
from tasks.core.stack.application_upgrade import refuse_older_image
from tasks.core.stack.compose_edit import Text
from tasks.core.stack.installation import Installation
from tasks.core.stack.upgrade import repository_of, require_image_name
from tasks.core.units import duration_text
from tasks.surroundings import surroundings
from tasks.upgrade.application_check import check_application_upgrade
from tasks.upgrade.application_image import ApplicationImage, look_at_application_image, running_image
from tasks.upgrade.configuration import described, differences_of, new_configuration, plan_page, plan_question


@dataclass(frozen=True, slots=True)
class ApplicationAhead:
    """What an upgrade of the application would be: the images, the files that change, and what is to be known."""

    old: ApplicationImage
    new: ApplicationImage
    files: tuple[Text, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApplicationRehearsal:
    """What an upgrade on staging showed: of which backup, the schema before and after, and how long the copy (with its comparison) and the exchange with the start took."""

    at: datetime
    backup: str
    image_id: str
    old_image_id: str
    schema_before: str
    schema_after: str
    copy_seconds: float
    start_seconds: float
    mails: int
    attachments: int

    @property
    def downtime_seconds(self) -> float:
        """Give how long the application will be down, by what was measured."""
        return self.copy_seconds + self.start_seconds

    @property
    def migrations(self) -> str:
        """Describe the change of the schema."""
        if self.schema_before == self.schema_after:
            return f"no migration (the schema stays {self.schema_after or 'without a version'})"
        return f"migrations from {self.schema_before or 'no version'} to {self.schema_after}"


@dataclass(frozen=True, slots=True)
class ApplicationPlan:
    """What would be done, and what of it was rehearsed."""

    installation: str
    ahead: ApplicationAhead
    rehearsal: ApplicationRehearsal
    configuration: Mapping[str, str]

    def __str__(self) -> str:
        """Tell the plan as a short Markdown page, which a terminal shows as well."""
        found = self.rehearsal
        rows = [
            ("Upgrade", f"{self.ahead.old.shown} to {self.ahead.new.shown}"),
            ("Backup", f"{found.backup}, verified by the rehearsal"),
            ("Rehearsed", f"{found.at:%Y-%m-%d %H:%M} UTC on isolated staging: {self._proven}"),
            ("Downtime", f"about {duration_text(found.downtime_seconds)}, as measured: copy of the database, compared, {duration_text(found.copy_seconds)}, exchange and start with migrations {duration_text(found.start_seconds)}"),
            ("Way back", "old image, compose file and database are kept until `commit`; `rollback` brings them back, without the mail that came since (a last dump of that goes to the repository)"),
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
        return plan_question(
            self.installation,
            f"{self.ahead.old.name} to {self.ahead.new.name}",
            self._proven,
            self.rehearsal.downtime_seconds,
        )

    @property
    def _proven(self) -> str:
        found = self.rehearsal
        return f"the backup restored equal, {found.migrations}, {found.mails:,} mails as before, {found.attachments:,} attachments right, the application answered"


def look_ahead_at_application(stack: Installation, image: str) -> ApplicationAhead:
    """Look at the image, the installation and its compose file, and say what an upgrade would be; raise Refused where it must not be."""
    old, service = stack.application.image, stack.application
    require_image_name(image, current=old, anywhere=surroundings().takes_paths, option="--application")
    described(stack, service)
    current = running_image(service.image, service.image_id, service.image_digest)
    new = look_at_application_image(image)
    if new.image_id == current.image_id:
        raise Refused(
            f"{image} is the image that runs already ({new.digest or new.image_id})", hint="is a newer tag meant?"
        )
    refuse_older_image(current.version, new.version, image=image)
    notes = list(check_application_upgrade(stack))
    if not new.digest:
        notes.append(f"no registry tells what {image} stands for: the image of that name on this host is taken")
    if repository_of(image) != repository_of(old):
        notes.append(f"the new image is of another repository than {old}")
    if not (current.version and new.version):
        notes.append("the images do not tell their versions, so whether the new one is newer is not known")
    files = new_configuration(stack, service.name, image)
    if not files:
        notes.append(f"the compose file says {image} already: that name will stand for the new image on this host")
    return ApplicationAhead(current, new, files, tuple(notes))


def plan_of_application(
    stack: Installation, ahead: ApplicationAhead, rehearsal: ApplicationRehearsal
) -> ApplicationPlan:
    """Put together what is to be approved."""
    return ApplicationPlan(stack.id, ahead, rehearsal, differences_of(ahead.files))
