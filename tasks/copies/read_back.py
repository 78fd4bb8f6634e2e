"""The step that reads copies back: every byte, as often as the settings ask, compared with what was sealed."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime

from tasks.adapters.copies.target import reading_parts
from tasks.adapters.copies.target_state import read_target_state, write_target_state
from tasks.copies.targets import reach_target, see_target, wanted_targets
from tasks.core.copies.state import due_for_reading
from tasks.progress import progress
from tasks.run.config import InstallationConfig
from tasks.step import step

logger = logging.getLogger(__name__)

# Of a hundred copies that are due at once each run reads a few: the next run comes soon.
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Which copies were read back and are what was sealed, and which are not."""

    equal: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


@step(name="read copies back", run_name="read back from {target}")
def read_back(config: InstallationConfig, target: str, *, now: datetime, at_once: int = AT_ONCE) -> ReadBack:
    """Read back the copies that are due, and remember what came of it; a damaged one counts no more, and is sent again."""
    (wanted,) = wanted_targets(config, target)
    if not due_for_reading(read_target_state(config.id, target).copies, now, wanted.read_back_days):
        return ReadBack()
    remote = reach_target(config, wanted)
    seen = see_target(config, wanted, remote, now=now)
    due = [name for name in due_for_reading(seen.state.copies, now, wanted.read_back_days) if name in seen.whole]
    equal: list[str] = []
    damaged: list[str] = []
    state = seen.state
    for name in due[:at_once]:
        there = seen.whole[name]
        with progress(f"read back from {target}", expected_bytes=there.record.bytes) as tell:
            digest, count = hashlib.sha256(), 0
            with reading_parts(remote, there.stored.parts) as pieces:
                for piece in pieces:
                    digest.update(piece)
                    count += len(piece)
                    tell(count)
        is_equal = digest.hexdigest() == there.record.sha256
        (equal if is_equal else damaged).append(name)
        if not is_equal:
            logger.warning("the copy of %s at %s is not what was sealed", there.record.file, target)
        entry = state.copies[name].model_copy(update={"read_at": now, "problem": "" if is_equal else "damaged"})
        state = state.with_copy(name, entry)
        write_target_state(config.id, target, state)
    return ReadBack(tuple(equal), tuple(damaged))
