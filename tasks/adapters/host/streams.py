"""Let the two ends of a stream work at the same time: one thread reads, another consumes, a bounded queue between."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Generic, TypeVar

Result = TypeVar("Result")
Piece = TypeVar("Piece")

PIECES_AHEAD = 8
TAIL_BYTES = 4096


class Observer(Generic[Result]):
    """Give every piece of a stream to a function that runs in a thread of its own, and fetch its result at the end.

    The function gets an iterator of the pieces and may stop early. Memory stays bounded: `feed` waits while the function is more than
    a few pieces behind. What the function raises is raised by `finish`, not by `feed`: the stream itself goes on undisturbed.
    """

    def __init__(self, consume: Callable[[Iterator[bytes]], Result], *, name: str) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(PIECES_AHEAD)
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(consume,), name=name, daemon=True)
        self._thread.start()

    def feed(self, piece: bytes) -> None:
        """Hand over the next piece."""
        self._queue.put(piece)

    def finish(self) -> Result:
        """Tell that the stream has ended; return the function's result or raise its error."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def abandon(self) -> None:
        """End the thread and forget its result: the stream failed."""
        self._queue.put(None)
        self._thread.join()

    def watch(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the pieces on and feed each; the caller then calls `finish`."""
        for piece in pieces:
            self.feed(piece)
            yield piece

    def _run(self, consume: Callable[[Iterator[bytes]], Result]) -> None:
        pieces = iter(self._queue.get, None)
        try:
            self._result = consume(pieces)
        except BaseException as error:  # noqa: BLE001 - raised again by finish()
            self._error = error
        for _ in pieces:  # keep the feeder from waiting for ever
            pass


class Tail:
    """The last bytes of a stream: enough for the end mark of a plain dump."""

    def __init__(self) -> None:
        self.bytes = b""

    def see(self, piece: bytes) -> None:
        """Take the next piece."""
        self.bytes = piece[-TAIL_BYTES:] if len(piece) >= TAIL_BYTES else (self.bytes + piece)[-TAIL_BYTES:]


def watched(pieces: Iterable[bytes], *watchers: Callable[[bytes], object]) -> Iterator[bytes]:
    """Pass the pieces on, having shown each to the watchers (a digest's `update`, a list's `append`)."""
    for piece in pieces:
        for watch in watchers:
            watch(piece)
        yield piece


def read_ahead(pieces: Iterator[Piece], *, name: str = "read-ahead") -> Generator[Piece, None, None]:
    """Yield the pieces of an iterator that runs in a thread of its own, a few pieces ahead.

    An error of the iterator is raised here in its place. Leaving early stops the thread, which closes the iterator.
    """
    pending: queue.Queue[tuple[Piece | None, BaseException | None]] = queue.Queue(PIECES_AHEAD)
    leaving = threading.Event()

    def put(item: tuple[Piece | None, BaseException | None]) -> None:
        while not leaving.is_set():
            try:
                pending.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def run() -> None:
        try:
            with closing(pieces) as source:  # type: ignore[type-var]
                for piece in source:
                    put((piece, None))
                    if leaving.is_set():
                        return
            put((None, None))
        except BaseException as error:  # noqa: BLE001 - raised again where the pieces are read
            put((None, error))

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        while True:
            piece, error = pending.get()
            if error is not None:
                raise error
            if piece is None:
                return
            yield piece
    finally:
        leaving.set()
        thread.join()
