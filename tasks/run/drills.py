"""What this machine knows of the recovery key's drills: since when its recipients are used, and when it last opened a backup."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.core.errors import BackupError
from tasks.core.policy.drill import DrillState, recipients_digest


def note_encrypting(installation: str, recipients: Sequence[str], now: datetime) -> None:
    """Note that an archive is encrypted to these recipients; where others were used before, a drill is due anew."""
    digest = recipients_digest(recipients)
    known = drill_state(installation)
    if known is None or known.recipients != digest:
        _write(installation, DrillState(digest, now))


def note_drill(installation: str, recipients: Sequence[str], backup: str, now: datetime) -> bool:
    """Note that the recovery key opened and proved a backup; return whether that is a drill of the recipients in use."""
    known = drill_state(installation)
    digest = recipients_digest(recipients)
    if known is not None and known.recipients != digest:
        return False
    _write(installation, DrillState(digest, known.since if known else now, now, backup))
    return True


def drill_state(installation: str) -> DrillState | None:
    """Give what is known; None where no archive was encrypted here yet, or where what was noted cannot be read."""
    try:
        found = read_json(_place(installation))
        if found is None:
            return None
        drilled = found.get("drilled_at")
        return DrillState(
            str(found["recipients"]),
            datetime.fromisoformat(str(found["since"])),
            datetime.fromisoformat(str(drilled)) if drilled else None,
            str(found.get("backup", "")),
        )
    except (BackupError, KeyError, ValueError):
        return None


def _write(installation: str, state: DrillState) -> None:
    write_json(
        _place(installation),
        {
            "recipients": state.recipients,
            "since": state.since.isoformat(),
            "drilled_at": state.drilled_at.isoformat() if state.drilled_at else None,
            "backup": state.backup,
        },
    )


def _place(installation: str) -> Path:
    return state_subdirectory("drills") / f"{installation}.json"
