"""A session with a thread of its own: the load tells several of them what to do, so that they work side by side."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto

from tasks.adapters.postgres.load_table import rows_as_dumped
from tasks.adapters.postgres.server import Server
from tasks.adapters.postgres.session import Session, session
from tasks.core.archive.manifest import TableCensus
from tasks.core.dump.events import CopyBegin
from tasks.core.errors import ArchiveDamaged, ProgramFailed

logger = logging.getLogger(__name__)

PIECES_WAITING = 4
LEAVING_SECONDS = 10.0


class _Signal(Enum):
    """What a lane may be told besides work and rows."""

    END_COPY = auto()
    LEAVE = auto()


class LoadSession:
    """A session with a thread that does what it is told in order. An error there is raised at the next thing it is told."""

    def __init__(
        self, server: Server, database: str, number: int, settings: Mapping[str, str], *, deadline: float
    ) -> None:
        self._server, self._database, self._settings, self._deadline = server, database, settings, deadline
        self._work: queue.Queue[Callable[[Session], None] | bytes | _Signal] = queue.Queue(PIECES_WAITING)
        self._session: Session | None = None
        self._doing = ""
        self._error: BaseException | None = None
        self._left = False
        self._thread = threading.Thread(target=self._run, name=f"load-{number}", daemon=True)

    def __enter__(self) -> LoadSession:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # Given up: what waits is not begun any more, what runs is cancelled.
            with suppress(queue.Empty):
                while True:
                    self._work.get_nowait()
            opened = self._session
            if opened is not None and self._thread.is_alive():
                opened.cancel()
        self._work.put(_Signal.LEAVE)
        self._thread.join(None if kind is None else LEAVING_SECONDS)

    def do(self, config: Callable[[Session], None], *, about: str = "") -> None:
        """Have it done with the lane's session, after all that was told before; `about` names the object in an error."""

        def named(opened: Session) -> None:
            self._doing = about
            config(opened)

        self._tell(named)

    def run(self, statement: bytes) -> None:
        """Run a statement of the dump."""
        self._tell(lambda opened: opened.run(statement))

    def begin_copy(self, statement: str, *, about: str = "") -> None:
        """Begin a COPY; nothing but its bytes and its end may follow. `about` names the object in an error."""

        def copy(opened: Session) -> None:
            self._doing = about
            with opened.copy_in(statement) as writer:
                for piece in self._pieces():
                    writer.write(piece)

        self._tell(copy)

    def copy(self, data: bytes) -> None:
        """Send some bytes of the COPY that was begun."""
        self._tell(data)

    def end_copy(self) -> None:
        """End the COPY that was begun."""
        self._tell(_Signal.END_COPY)

    def drain(self, statements: queue.SimpleQueue[tuple[str, bytes]]) -> None:
        """Run the statements (each with the name of its object) of a queue that several lanes share, until it is empty."""

        def config(opened: Session) -> None:
            while True:
                try:
                    self._doing, statement = statements.get_nowait()
                except queue.Empty:
                    return
                begun = time.monotonic()
                opened.run(statement)
                logger.debug("%.2f s: %s", time.monotonic() - begun, statement[:100].decode(errors="replace"))

        self._tell(config)

    def read_back(self, targets: Sequence[CopyBegin], found: dict[str, TableCensus]) -> None:
        """Read tables as a dump would word them, and put the census of each into `found`."""
        self._tell(lambda opened: rows_as_dumped(opened, targets, found))

    def mark(self) -> threading.Event:
        """Give an event that is set once all that was told so far is done."""
        done = threading.Event()
        self._tell(lambda _: done.set())
        return done

    def _tell(self, config: Callable[[Session], None] | bytes | _Signal) -> None:
        while True:
            self.raise_error()
            try:
                self._work.put(config, timeout=1.0)
                return
            except queue.Full:
                continue

    def raise_error(self) -> None:
        """Raise what went wrong here, or that time is up."""
        if self._error is not None:
            raise self._error
        if time.monotonic() > self._deadline:
            raise ProgramFailed(f"PostgreSQL did not load {self._doing or 'the dump'} within the time limit")

    def _pieces(self) -> Iterator[bytes]:
        while isinstance(piece := self._work.get(), bytes):
            yield piece
        if piece is _Signal.LEAVE:
            self._left = True
            raise ArchiveDamaged("the load was given up in the middle of a table")

    def _run(self) -> None:
        try:
            left = max(1.0, self._deadline - time.monotonic())
            with session(
                self._server, self._database, purpose="load", settings=self._settings, answer_seconds=left
            ) as opened:
                self._session = opened
                while (config := self._work.get()) is not _Signal.LEAVE:
                    if callable(config):
                        config(opened)
                        self._doing = ""
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that tells us what to do
            if isinstance(error, ProgramFailed):
                error.about = error.about or self._doing
            self._error = error
            # A caller that hands over more before it sees the error must not wait for ever.
            while not self._left and self._work.get() is not _Signal.LEAVE:
                pass


def finish_work(lanes: Sequence[LoadSession]) -> None:
    """Wait until lanes have done all that they were told so far; an error of any of them ends the wait."""
    for done in [lane.mark() for lane in lanes]:
        while not done.wait(0.2):
            for lane in lanes:
                lane.raise_error()
    for lane in lanes:
        lane.raise_error()
