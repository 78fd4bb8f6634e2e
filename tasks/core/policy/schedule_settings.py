"""The operator's settings of when things run, and of how much an online backup holds."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from tasks.core.policy.chains import OnlineKind
from tasks.core.policy.cron import cron_problem
from tasks.core.policy.setting_types import DAYS_LIMIT, Section


class Incremental(Section):
    """Whether online backups hold only what has changed since the one before (PostgreSQL 17 and newer).

    "auto" makes a full one after so many days or links, or where nearly all has changed, "incremental" only where there is
    no other way, "full" always. Anything but "full" has the server note what changes (`summarize_wal`), which
    `mailarchiver-backup wal-summaries --off` takes back.
    """

    kind: OnlineKind = "full"
    full_after_days: Annotated[float, Field(gt=0, le=DAYS_LIMIT, allow_inf_nan=False)] = 30
    full_after_links: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 120
    # The full one is put together from the chain, on this side: the database is not read again for it.
    synthetic: Annotated[bool, Field(strict=True)] = False


class Schedule(Section):
    """When things run, as five cron fields in `timezone`; None: not by themselves.

    The defaults keep clear of Mail Archiver's own jobs at 02:00 and 02:30.
    """

    backup: str | None = "30 3 * * *"
    complete: str | None = None
    # Online backups of what has changed, say hourly.
    incremental: str | None = None
    verification: str | None = "0 5 1 * *"
    copies: str | None = "40 */6 * * *"
    proxmox: str | None = None
    lxc: str | None = None
    vm: str | None = None
    # The newest backup of each of the guests at Proxmox, restored as a test.
    proxmox_verification: str | None = None
    host: str | None = None
    timezone: str = "UTC"

    @field_validator(
        "backup",
        "complete",
        "incremental",
        "verification",
        "copies",
        "proxmox",
        "lxc",
        "vm",
        "proxmox_verification",
        "host",
    )
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        if value is not None and (problem := cron_problem(value)):
            raise ValueError(f'is not a cron schedule of five fields, such as "0 2 * * *": it {problem}')
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError('is not a time zone, such as "UTC" or "Europe/Vienna"') from None
        return value
