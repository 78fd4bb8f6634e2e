"""Where an archive's bytes go: hashed, counted and written behind the compressor."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.host.files import SEND_BYTES, BytesLike, send_to_disk, write_all, write_error
from tasks.core.errors import BackupError

_PIECES_BEHIND = 4


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of the file that were reserved to be written later; `place` is what an encrypting sink knows of them."""

    position: int
    bytes: int
    place: object = None


class Sink:
    """The file below a compressor: writes everything and counts it, or swallows it once `discard` is set.

    A failed write is a BackupError already here, so that it can be told from an error of what is being written.
    """

    def __init__(self, path: Path, descriptor: int, position: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.position = position
        self.discard = False
        self._sent = position

    def write(self, data: BytesLike) -> int:
        """Write all of `data`, unless this segment was given up."""
        if self.discard:
            return len(data)
        try:
            count = write_all(self.descriptor, data)
        except OSError as error:
            raise write_error(self.path, error, written_bytes=self.position) from error
        self.position += count
        self._send_to_disk()
        return count

    def _send_to_disk(self) -> None:
        """Have what was written go to the disk while more is being made, and leave the page cache to PostgreSQL."""
        if self.position - self._sent >= SEND_BYTES:
            send_to_disk(self.descriptor, self._sent, self.position - self._sent)
            self._sent = self.position

    def overwrite(self, data: bytes, position: int) -> None:
        """Replace bytes that were written before, all of them, and stay at the end."""
        try:
            count = os.pwrite(self.descriptor, data, position)
        except OSError as error:
            raise write_error(self.path, error, written_bytes=self.position) from error
        if count != len(data):
            raise BackupError(f"only {count} of {len(data)} bytes at {position} of {self.path} could be replaced")

    def reserve(self, data: bytes) -> Room:
        """Write `data` for the time being; `fill` will replace it by as many bytes."""
        position = self.position
        self.write(data)
        return Room(position, len(data))

    def fill(self, room: Room, data: bytes) -> None:
        """Write what room was reserved for."""
        self.overwrite(data, room.position)

    def end(self) -> None:
        """End this segment's part of the file; a plain file needs nothing."""

    def abandon(self) -> None:
        """Stop writing; what was written is going to be cut off."""
        self.discard = True

    def flush(self) -> None:
        """Do nothing: nothing is kept back here. The libraries call it."""


class _WriteBehind:
    """Write to a sink from a thread of its own, a few pieces behind; its error is raised by a later `write`, or by `close`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive-write")
        self._pending: deque[Future[int]] = deque()

    def write(self, data: bytes) -> int:
        self._pending.append(self._thread.submit(self._sink.write, data))
        while len(self._pending) > _PIECES_BEHIND:
            self._pending.popleft().result()
        return len(data)

    def flush(self) -> None:
        """Do nothing, as the sink itself."""

    def close(self) -> None:
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)
