"""The section `host`: what of the machine around is backed up."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.core.policy.setting_types import AbsolutePath, Hours, Section

# As Docker and Compose allow them: no name of a volume is a path, or an option.
VolumeName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}$")]
ProjectName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$")]


class Host(Section):
    """What of the host around is backed up: Docker volumes and compose projects by name, their images, and paths such as /etc/fstab.

    With `images: saved` the images themselves are in the archive, by `docker save`; else their digests alone, by which a
    registry gives them again. `within_hours` is how old the newest of these backups may be before that is an alarm.
    """

    volumes: Annotated[tuple[VolumeName, ...], Field(max_length=200)] = ()
    projects: Annotated[tuple[ProjectName, ...], Field(max_length=200)] = ()
    images: Literal["digests", "saved"] = "digests"
    paths: Annotated[tuple[AbsolutePath, ...], Field(max_length=500)] = ()
    within_hours: Hours = 200

    @model_validator(mode="after")
    def _names_something(self) -> Host:
        if not (self.volumes or self.projects or self.paths):
            raise ValueError("names nothing: give volumes, projects or paths; leave the section out otherwise")
        if any(not each.name for each in self.paths):
            raise ValueError("names the root directory among its paths: name what is wanted of it, such as /etc")
        for what, found in (("volume", self.volumes), ("project", self.projects), ("path", self.paths)):
            for each in found:
                if found.count(each) > 1:
                    raise ValueError(f"names the {what} {str(each)!r} twice")
        return self
