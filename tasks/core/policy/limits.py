"""How long things may take, and how much they may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DumpLimits:
    """How long a dump may wait for a table's lock, stay silent, and take altogether; the last holds for each statement of a load, too.

    `foreign_seconds` is how long a load may wait for another server whose tables a materialized view reads.
    """

    lock_wait_seconds: float = 120
    idle_seconds: float = 600
    total_seconds: float = 24 * 3600
    foreign_seconds: float = 120


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """How long PostgreSQL may take to shut down cleanly before it is killed, and the application to answer after its start."""

    postgres_stop_seconds: int = 120
    application_start_seconds: float = 300


@dataclass(frozen=True, slots=True)
class StagingLimits:
    """What a staging stack may take: memory of each container (None: no limit)."""

    memory_bytes: int | None = None
