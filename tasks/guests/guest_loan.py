"""A guest that is stopped for its backup, and its way back, whatever happens.

Before it is asked to shut down a journal of its state is on the disk and a watchdog stands by, as for stopped services. A
run that dies leaves both to bring the guest to its former state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tasks.adapters.host.deferred_signals import signals_deferred
from tasks.adapters.host.journals import Journal, OpenJournal
from tasks.adapters.host.watchdog_link import WatchdogLink, watched_journal
from tasks.core.errors import BackupError
from tasks.core.guests.former_state import Asked, Former, way_back
from tasks.core.policy.guest_settings import Guests
from tasks.guests.power import Power, power_of
from tasks.run.config import InstallationConfig

logger = logging.getLogger(__name__)

# A cancelled Prefect run is killed 30 s after it was asked to end: hand over to the watchdog before that.
GIVE_BACK_SECONDS = 15.0
SETTLING_SECONDS = 15.0
_POLL_SECONDS = 0.2


class GuestLoan:
    """A guest that may be stopped. Made by `state_kept` only."""

    def __init__(
        self, power: Power, former: Former, journal: OpenJournal, body: Mapping[str, Any], watchdog: WatchdogLink
    ) -> None:
        self.power, self.former = power, former
        self.downtime_seconds = 0.0
        self._journal, self._body, self._watchdog = journal, dict(body), watchdog
        self._stopped_at: float | None = None
        self._patience_seconds = GIVE_BACK_SECONDS
        self._over = False

    def stop(self, wanted: Guests) -> None:
        """Shut the guest down; raise BackupError where it does not, and is not to lose its power either."""
        seen, _ = self.power.now()
        if seen.state == "stopped":
            return
        self._body["asked"] = {"run": seen.run, "at": int(time.time()), "limit_seconds": int(wanted.stop_seconds)}
        self._journal.rewrite(self._body)
        self._stopped_at = time.monotonic()
        self.power.ask_to_stop()
        if self._is_stopped_within(wanted.stop_seconds):
            return
        if wanted.when_it_stays_up == "refuse":
            self._patience_seconds = 0.0
            raise BackupError(
                f"{self.power} did not shut down within {wanted.stop_seconds:g} s, and was left alone; it has no backup",
                hint="raise `stop_seconds` in its section of the settings, or set `when_it_stays_up: kill`",
            )
        logger.warning("%s did not shut down within %g s: its power is cut", self.power, wanted.stop_seconds)
        self.power.cut()
        if not self._is_stopped_within(SETTLING_SECONDS):
            raise BackupError(f"{self.power} cannot be ended", hint="see what its own programs say of it")

    def require_stopped(self) -> None:
        """Raise BackupError where somebody has started it meanwhile: then what was copied is of no one moment."""
        seen, word = self.power.now()
        if seen.state != "stopped":
            raise BackupError(
                f"{self.power} was started while it was copied ({word}); there is no backup",
                hint="does something start it by itself, such as a unit of systemd? try again at a quiet hour",
            )

    def give_back(self) -> None:
        """Bring the guest to its former state; a second call does nothing. Where it does not succeed, the watchdog goes on."""
        with signals_deferred():
            if self._over:
                return
            try:
                _bring_back(self.power, self.former, _asked(self._body), self._patience_seconds)
                if self._stopped_at is not None:
                    self.downtime_seconds = time.monotonic() - self._stopped_at
                self._journal.remove()
                self._watchdog.release()
            finally:
                self._over = True
                self._journal.abandon()
                self._watchdog.close()

    def _is_stopped_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.power.now()[0].state != "stopped":
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


@contextmanager
def state_kept(config: InstallationConfig, power: Power, former: Former) -> Iterator[GuestLoan]:
    """Give a guest its former state back at the end of the block, however that comes."""
    body = {"reason": f"a backup of {power}", **power.body, "former": former, "asked": None}
    journal, watchdog = watched_journal(
        power.kind, body, installation_id=config.id, installation_directory=config.directory
    )
    loan = GuestLoan(power, former, journal, body, watchdog)
    try:
        yield loan
    except BaseException as error:
        try:
            loan.give_back()
        except BackupError as second:
            error.add_note(f"Then bringing {power} back failed, and the watchdog goes on: {second}")
        raise
    else:
        loan.give_back()


def settle(journal: Journal) -> str:
    """Bring the guest of a dead run to its former state, and say what that took."""
    body, power = journal.body, power_of(journal.kind, journal.body)
    started = _bring_back(power, body["former"], _asked(body), SETTLING_SECONDS)
    return f"{power}: {'started it' if started else 'it was in its former state'}"


def _asked(body: Mapping[str, Any]) -> Asked | None:
    found = body["asked"]
    return Asked(str(found["run"]), float(found["at"]), float(found["limit_seconds"])) if found is not None else None


def _bring_back(power: Power, former: Former, asked: Asked | None, patience_seconds: float) -> bool:
    """Take the way back to the former state; tell whether the guest was started. Raise BackupError where it is not there when patience ends."""
    deadline, started = time.monotonic() + patience_seconds, False
    while True:
        seen, word = power.now()
        step = way_back(former, seen, asked, time.time())
        if step == "done":
            return started
        try:
            if step == "start":
                logger.info("Starting %s", power)
                power.start()
                started = True
        except BackupError as error:
            if time.monotonic() > deadline:
                raise BackupError(f"{power} does not start: {error.message}", hint="try to start it by hand") from error
            logger.info("%s; trying again", error.message)
        if time.monotonic() > deadline:
            raise BackupError(
                f"{power} is not yet in its former state ({former}); it is {word}",
                hint="it was asked to shut down and may yet do so: then it is started; `mailarchiver-backup recover` looks again",
            )
        time.sleep(_POLL_SECONDS)
