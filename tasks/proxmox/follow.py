"""A task of Proxmox followed to its end: its log is the run's log, its progress the run's progress."""

from __future__ import annotations

import logging
import time

from tasks.adapters.proxmox import virtual_environment as pve
from tasks.adapters.proxmox.session import Session
from tasks.core.errors import BackupError
from tasks.core.proxmox.judge_backup import percent_in
from tasks.core.proxmox.replies import Guest
from tasks.core.units import duration_text
from tasks.progress import progress

logger = logging.getLogger(__name__)

# Short at first, for a guest that is small; a task of hours is asked after less often.
POLL_SECONDS = (0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0)
LINES_KEPT = 20_000
# A server that is away for so long while a task runs is no reason to end it.
AWAY_SECONDS = 600.0


def follow(
    api: Session, guest: Guest, upid: str, *, what: str, bytes: int, limit_seconds: float, hint: str
) -> tuple[list[str], str]:
    """Bring a task's log into the run until it has ended; give its lines and its exit status.

    Raise BackupError, with the hint, where it has not ended after so long; it runs on then, and the caller ends it.
    """
    lines: list[str] = []
    begun, polls = time.monotonic(), 0
    answered = begun
    with progress(f"{what.partition(' ')[0]} of guest {guest.vmid}", expected_bytes=bytes or None) as tell:
        while True:
            try:
                task = pve.task_now(api, guest.node, upid)
                _read_on(api, guest, upid, lines)
            except BackupError as error:
                if not error.transient or time.monotonic() - answered > AWAY_SECONDS:
                    raise
                logger.warning("%s; the %s goes on there, asking again", error.message, what)
            else:
                answered = time.monotonic()
                if not task.running:
                    return lines, task.exit_status
                percents = (percent_in(line) for line in reversed(lines[-50:]))
                if (percent := next((each for each in percents if each is not None), None)) is not None:
                    tell(bytes * percent // 100)
            if time.monotonic() - begun > limit_seconds:
                raise BackupError(
                    f"the {what} does not end: it has run for {duration_text(time.monotonic() - begun)}, as long as it may",
                    hint=hint,
                )
            time.sleep(POLL_SECONDS[min(polls, len(POLL_SECONDS) - 1)])
            polls += 1


def _read_on(api: Session, guest: Guest, upid: str, lines: list[str]) -> None:
    """Log the lines that are new, and keep them, as many as there may be."""
    while len(lines) < LINES_KEPT:
        new = [each for number, each in pve.task_log(api, guest.node, upid, len(lines)) if number > len(lines)]
        for each in new:
            logger.info("%s: %s", guest.vmid, each)
        lines += new
        if len(new) < pve.LINES_AT_ONCE:
            return
