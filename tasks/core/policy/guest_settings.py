"""The sections `lxc` and `vm`: which guests of this host are backed up as a whole, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tasks.core.policy.guest_names import GUEST_NAME
from tasks.core.policy.setting_types import SECONDS_LIMIT, AbsolutePath, Hours, Section

LONGEST_STOP_SECONDS = 6 * 3600

GuestName = Annotated[str, Field(pattern=f"^{GUEST_NAME}$")]
GuestNames = Annotated[tuple[GuestName, ...], Field(min_length=1, max_length=50)]
WhenItStaysUp = Literal["refuse", "kill"]


class Guests(Section):
    """What both kinds have.

    `stop_seconds` is how long a guest may take to shut down; one that is not down then is left alone and has no backup
    ("refuse"), or loses its power ("kill"). `limit_hours` is how long the copy may take: then the guest is started and there is no backup.
    `within_hours` is how old a guest's newest backup may be before that is an alarm.
    """

    stop_seconds: Annotated[float, Field(ge=1, le=min(LONGEST_STOP_SECONDS, SECONDS_LIMIT), allow_inf_nan=False)] = 120
    when_it_stays_up: WhenItStaysUp = "refuse"
    limit_hours: Hours = 12
    within_hours: Hours = 200


class Lxc(Guests):
    """Containers of LXC on this host, below `path` (lxc.lxcpath)."""

    containers: GuestNames
    path: AbsolutePath = Path("/var/lib/lxc")

    @field_validator("containers")
    @classmethod
    def _differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return once_each(value)

    @property
    def limit_seconds(self) -> float:
        """Give how long the backups of all of them may take, with what comes before and after each."""
        return len(self.containers) * (self.limit_hours * 3600 + self.stop_seconds + 1800)


class Vm(Guests):
    """Virtual machines of libvirt on this host.

    A restored one's disks go into a directory of its own below `images`.
    """

    domains: GuestNames
    uri: Literal["qemu:///system", "qemu:///session"] = "qemu:///system"
    images: AbsolutePath = Path("/var/lib/libvirt/images")

    @field_validator("domains")
    @classmethod
    def _differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return once_each(value)

    @property
    def limit_seconds(self) -> float:
        """Give how long the backups of all of them may take, with what comes before and after each."""
        return len(self.domains) * (self.limit_hours * 3600 + self.stop_seconds + 1800)


def once_each(names: tuple[str, ...]) -> tuple[str, ...]:
    """Raise ValueError where a guest is named twice."""
    for each in names:
        if names.count(each) > 1:
            raise ValueError(f"names {each} twice")
    return names
