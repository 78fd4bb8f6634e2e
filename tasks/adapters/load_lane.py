"""A session with a thread of its own: the load tells several of them what to do, so that they work side by side."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto

from tasks.adapters.postgres import Server, Session, session
from tasks.core.census import table_census
from tasks.core.dump_events import CopyBegin
from tasks.core.errors import ArchiveDamaged
from tasks.core.manifest import TableCensus

logger = logging.getLogger(__name__)

PIECES_WAITING = 4


class _Signal(Enum):
    """What a lane may be told besides work and rows."""

    END_COPY = auto()
    LEAVE = auto()


class Lane:
    """A session with a thread that does what it is told in order. An error there is raised at the next thing it is told."""

    def __init__(self, server: Server, database: str, number: int, settings: Mapping[str, str]) -> None:
        self._server, self._database, self._settings = server, database, settings
        self._work: queue.Queue[Callable[[Session], None] | bytes | _Signal] = queue.Queue(PIECES_WAITING)
        self._error: BaseException | None = None
        self._left = False
        self._thread = threading.Thread(target=self._run, name=f"load-{number}", daemon=True)

    def __enter__(self) -> Lane:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._work.put(_Signal.LEAVE)
        self._thread.join()

    def do(self, work: Callable[[Session], None]) -> None:
        """Have it done with the lane's session, after all that was told before."""
        self._tell(work)

    def run(self, statement: bytes) -> None:
        """Run a statement of the dump."""
        self._tell(lambda opened: opened.run(statement))

    def begin_copy(self, statement: str) -> None:
        """Begin a COPY; nothing but its bytes and its end may follow."""

        def copy(opened: Session) -> None:
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

    def drain(self, statements: queue.SimpleQueue[bytes]) -> None:
        """Run the statements of a queue that several lanes share, until it is empty."""

        def work(opened: Session) -> None:
            while True:
                try:
                    statement = statements.get_nowait()
                except queue.Empty:
                    return
                begun = time.monotonic()
                opened.run(statement)
                logger.debug("%.2f s: %s", time.monotonic() - begun, statement[:100].decode(errors="replace"))

        self._tell(work)

    def read_back(self, targets: Sequence[CopyBegin], found: dict[str, TableCensus]) -> None:
        """Read tables as a dump would word them, and put the census of each into `found`."""

        def work(opened: Session) -> None:
            opened.execute("SELECT set_config('client_encoding', current_setting('server_encoding'), false)")
            for each in targets:
                found[each.target] = table_census(opened.copy_out(each.reading))

        self._tell(work)

    def finish_work(self) -> None:
        """Wait until all that was told so far is done."""
        done = threading.Event()
        self._tell(lambda _: done.set())
        while not done.wait(0.2):
            self._raise_error()
        self._raise_error()

    def _tell(self, work: Callable[[Session], None] | bytes | _Signal) -> None:
        self._raise_error()
        self._work.put(work)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _pieces(self) -> Iterator[bytes]:
        while isinstance(piece := self._work.get(), bytes):
            yield piece
        if piece is _Signal.LEAVE:
            self._left = True
            raise ArchiveDamaged("the load was given up in the middle of a table")

    def _run(self) -> None:
        try:
            with session(self._server, self._database, purpose="load", settings=self._settings) as opened:
                while (work := self._work.get()) is not _Signal.LEAVE:
                    if callable(work):
                        work(opened)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that tells us what to do
            self._error = error
            # Whoever tells us something before it sees the error must not wait for ever.
            while not self._left and self._work.get() is not _Signal.LEAVE:
                pass
