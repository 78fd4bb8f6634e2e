"""Read the leading fields of `global/pg_control`: was the server shut down, and from where on is WAL needed?

These fields have stood at the same places in every PostgreSQL from 11 to 18. (Source: src/include/catalog/pg_control.h.)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tasks.core.errors import Refused

PG_CONTROL_NAME = "global/pg_control"
STATES = (
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
)
_FIELDS = struct.Struct("<QIII4xqQQI")
_OLDEST_LAYOUT, _NEWEST_LAYOUT = 1100, 1899


@dataclass(frozen=True, slots=True)
class ControlData:
    """What pg_control says; `redo` is the WAL position from which recovery would start."""

    system_identifier: str
    layout: int
    state: str
    redo: int
    timeline: int

    @property
    def is_shut_down(self) -> bool:
        """Tell whether the server ended cleanly, so that its files are of one moment."""
        return self.state == "shut down"

    def redo_segment(self, segment_bytes: int) -> str:
        """Name the WAL segment that holds the redo position.

        >>> ControlData("1", 1300, "shut down", 0x3000028, 1).redo_segment(16 << 20)
        '000000010000000000000003'
        """
        return segment_name(self.timeline, self.redo // segment_bytes, segment_bytes)


def segment_name(timeline: int, number: int, segment_bytes: int) -> str:
    """Name a WAL segment by its number since the beginning."""
    per_file = 0x100000000 // segment_bytes
    return f"{timeline:08X}{number // per_file:08X}{number % per_file:08X}"


def read_control(content: bytes) -> ControlData:
    """Read the file's content; raise Refused where it is no pg_control that is known."""
    if len(content) < _FIELDS.size:
        raise Refused(f"pg_control has {len(content)} bytes: that is none")
    identifier, layout, _catalog, state, _time, _checkpoint, redo, timeline = _FIELDS.unpack_from(content)
    if not _OLDEST_LAYOUT <= layout <= _NEWEST_LAYOUT or state >= len(STATES):
        raise Refused(
            f"pg_control has layout {layout} and state {state}, which this program does not know", hint="update it"
        )
    return ControlData(str(identifier), layout, STATES[state], redo, timeline)


def needed_after_shutdown(name: str, control: ControlData, segment_bytes: int) -> bool:
    """Tell whether a file below the data directory is needed to start a cluster that was shut down cleanly.

    Of the WAL that is the segment with the shutdown checkpoint and the one after it; older and recycled segments can
    double an archive. `postmaster.pid` and the like belong to a server that is gone; what is left of a base backup that
    was restored long ago describes other files.
    """
    if name in ("postmaster.pid", "postmaster.opts", "backup_manifest", "backup_label.old", "tablespace_map.old"):
        return False
    if not name.startswith("pg_wal/") or "/" in name.removeprefix("pg_wal/"):
        return True
    segment = name.removeprefix("pg_wal/")
    if len(segment) != 24:
        return True  # timeline history, backup labels
    number = control.redo // segment_bytes
    return segment in (control.redo_segment(segment_bytes), segment_name(control.timeline, number + 1, segment_bytes))
