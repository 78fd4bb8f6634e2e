"""Until when a copy is locked at a target: until its retention ends there, and at least `lock_days` from its sending.

Such a lock (COMPLIANCE) can be made longer by nobody's leave, and shorter by nobody at all. So it must not keep what
retention would let go. What a rule of days keeps has an end from the first day on; the best of a day, week or month has
one once that is over, and nothing newer can take its place: its lock is made longer then. What only a count or a floor
keeps has no date: its lock is renewed, for `lock_days` each time, as long as they keep it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tasks.core.policy.retention import Decision

# A lock cannot be taken back: what is kept longer has its lock made longer by later runs.
LONGEST = timedelta(days=3653)
# Servers keep whole seconds, some of them round.
EQUAL = timedelta(minutes=1)


def lock_end(
    decision: Decision, *, lock_days: int, sent_at: datetime, locked_until: datetime | None, now: datetime
) -> datetime | None:
    """Say until when a copy is to be locked; None where it stays as it is: long enough, or of no rule any more.

    `locked_until` is what the target answered; None for a copy that is sent now, or has no lock.
    """
    if not lock_days or not (decision.until or decision.undated):
        return None
    days, held = timedelta(days=lock_days), max(locked_until or now, now)
    ends = [sent_at + days]
    if decision.until is not None:
        ends.append(decision.until)
    if decision.undated and held - now < days / 2:
        ends.append(now + days)
    end = max(ends)
    if end > now + LONGEST:
        end = now + LONGEST if held - now < LONGEST / 2 else held
    return end.replace(microsecond=0) if end > held + EQUAL else None
