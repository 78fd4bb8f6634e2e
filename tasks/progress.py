"""Progress of long steps: bytes and rate, in the terminal where there is one, as an artifact in Prefect during a flow run."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.surroundings import surroundings

logger = logging.getLogger(__name__)

TERMINAL_SECONDS = 0.2
PREFECT_SECONDS = 5.0
PREFECT_LAST_SECONDS = 1.0
LOG_SECONDS = 30.0


@contextmanager
def progress(what: str, *, expected_bytes: int | None = None) -> Iterator[Callable[[int], None]]:
    """Give a function that takes the bytes done so far; it shows them at a bearable rate and never fails the work.

    Work that fails ends where it stood, not at 100 %. `expected_bytes` is an estimate: with it a percentage is shown,
    at most 99 before the end.
    """
    shows: list[_Show] = [_Log(what)]
    if sys.stderr.isatty():
        shows.append(_Terminal(what))
    if surroundings().has_server:
        shows.append(_Artifact(what))
    begun = time.monotonic()
    done = 0

    def tell(bytes_done: int) -> None:
        nonlocal done
        done = bytes_done
        now = time.monotonic()
        for show in shows:
            if now >= show.next_at:
                show.next_at = now + show.every_seconds
                show.update(_Moment(bytes_done, expected_bytes, now - begun))

    finished = False
    try:
        yield tell
        finished = True
    finally:
        for show in shows:
            show.end(_Moment(done, expected_bytes, time.monotonic() - begun), finished=finished)


class _Moment:
    def __init__(self, done: int, expected: int | None, seconds: float) -> None:
        self.done, self.seconds = done, seconds
        self.percent = min(99.0, 100 * done / expected) if expected else None

    def __str__(self) -> str:
        rate = self.done / self.seconds / 1e6 if self.seconds > 0 else 0.0
        percent = f", {self.percent:.0f} %" if self.percent is not None else ""
        return f"{self.done / 1e6:,.0f} MB, {rate:,.0f} MB/s{percent}"


class _Show:
    every_seconds = 1.0

    def __init__(self, what: str) -> None:
        self.what = what
        self.next_at = time.monotonic() + self.every_seconds

    def update(self, moment: _Moment) -> None: ...

    def end(self, moment: _Moment, *, finished: bool) -> None: ...


class _Log(_Show):
    every_seconds = LOG_SECONDS

    def update(self, moment: _Moment) -> None:
        logger.info("%s: %s", self.what, moment)


class _Terminal(_Show):
    every_seconds = TERMINAL_SECONDS

    def update(self, moment: _Moment) -> None:
        sys.stderr.write(f"\r\x1b[2K{self.what}: {moment}")
        sys.stderr.flush()

    def end(self, moment: _Moment, *, finished: bool) -> None:
        if moment.done:
            how = "in" if finished else "FAILED after"
            sys.stderr.write(f"\r\x1b[2K{self.what}: {moment} {how} {moment.seconds:.1f} s\n")
            sys.stderr.flush()


class _Artifact(_Show):
    """Prefect's progress artifact, sent by a thread of its own.

    The server may be away, and its client patient: then the run's page is poorer, and the backup goes on, with the
    stack perhaps down for it.
    """

    every_seconds = PREFECT_SECONDS

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self._artifact: object = None
        self._sender: threading.Thread | None = None

    def update(self, moment: _Moment) -> None:
        if self._sender is not None and self._sender.is_alive():
            return
        context = contextvars.copy_context()  # holds the flow run that the artifact belongs to
        self._sender = threading.Thread(target=context.run, args=(self._send, moment), name="progress", daemon=True)
        self._sender.start()

    def _send(self, moment: _Moment) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(progress=moment.percent or 0.0, description=self.what)
            else:
                update_progress_artifact(artifact_id=self._artifact, progress=moment.percent or 0.0)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises, showing progress must not end a backup
            logger.debug("progress cannot be shown: %s", error)

    def end(self, moment: _Moment, *, finished: bool) -> None:
        if self._sender is not None:
            self._sender.join(PREFECT_LAST_SECONDS)
            if finished:
                moment.percent = 100.0
            self.update(moment)
            self._sender.join(PREFECT_LAST_SECONDS)
