"""A program that runs inside a container, seen through the connection Docker hands over for it.

Docker multiplexes stdout and stderr on that connection: eight bytes (stream number, length), then the bytes. Reading it here
with large receives is several times faster than the SDK's readers, which poll and copy for every few bytes.

`docker exec` forwards no signals, and a program goes on when its client leaves. So every program carries a mark in its
environment, and `end` finds it by that mark and ends it from inside the container.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from tasks.core.errors import BackupError, ProgramFailed

logger = logging.getLogger(__name__)

RECEIVE_BYTES = 1 << 20
SEND_BYTES = 1 << 20
STDERR_TAIL_BYTES = 65_536
UNREAD_LIMIT_BYTES = 64 << 20
HEADER_BYTES = 8
STDERR = 2
END_GRACE_SECONDS = 5.0


class Demultiplexer:
    """Split Docker's framing: `feed` returns the stdout in a block and keeps the end of stderr."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._stream = 0
        self._left = 0
        self._stderr = bytearray()

    def feed(self, block: memoryview) -> bytes:
        """Return the part of this block that is stdout; one copy, whatever the number of frames."""
        pieces: list[memoryview] = []
        position, end = 0, len(block)
        while position < end:
            if self._left == 0:
                wanted = min(HEADER_BYTES - len(self._header), end - position)
                self._header += block[position : position + wanted]
                position += wanted
                if len(self._header) < HEADER_BYTES:
                    break
                self._stream = self._header[0]
                self._left = int.from_bytes(self._header[4:8], "big")
                self._header.clear()
                continue
            taken = min(self._left, end - position)
            piece = block[position : position + taken]
            if self._stream == STDERR:
                self._keep(piece)
            else:
                pieces.append(piece)
            self._left -= taken
            position += taken
        return b"".join(pieces)

    @property
    def cut(self) -> bool:
        """Tell whether the bytes so far end in the middle of a frame."""
        return self._left > 0 or bool(self._header)

    @property
    def stderr_tail(self) -> str:
        """Give the last 64 KiB of stderr."""
        return bytes(self._stderr).decode(errors="replace")

    def _keep(self, piece: memoryview) -> None:
        self._stderr += piece[-STDERR_TAIL_BYTES:]
        if len(self._stderr) > STDERR_TAIL_BYTES:
            del self._stderr[:-STDERR_TAIL_BYTES]


@dataclass(frozen=True, slots=True)
class Connection:
    """What Docker hands over for a program: the socket, bytes that were already read from it, and how to ask about it.

    `exit_code` answers None while the program runs, and raises ProgramFailed where Docker does not know. `describe` says in
    a few words how its container is. `end` ends the program inside the container and does not raise.
    """

    socket: socket.socket
    already_read: bytes
    exit_code: Callable[[], int | None]
    describe: Callable[[], str]
    end: Callable[[], None]
    close: Callable[[], None]


class Program:
    """A running program in a container; use it in a `with` block.

    Leaving the block ends a program that has not ended by itself (also inside the container), and never hangs. Success is
    what `wait` returns, never the end of the stream alone.
    """

    def __init__(self, connection: Connection, command: tuple[str, ...]) -> None:
        self.command = command
        self._connection = connection
        self._socket = connection.socket
        self._frames = Demultiplexer()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._ended = False
        self._exit_code: int | None = None
        if connection.already_read:
            self._put_aside(self._frames.feed(memoryview(connection.already_read)))

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def stderr_tail(self) -> str:
        """Give the last 64 KiB of what the program wrote to stderr so far."""
        return self._frames.stderr_tail

    @property
    def has_unread(self) -> bool:
        """Tell whether stdout was received that nobody has read yet."""
        return bool(self._unread)

    @property
    def name(self) -> str:
        """Give the program's name, for messages."""
        return self.command[0]

    def fileno(self) -> int:
        """Give the connection's descriptor, to be waited for with poll."""
        return self._socket.fileno()

    def chunks(self, *, idle_timeout_seconds: float = 3600) -> Iterator[bytes]:
        """Yield stdout as it comes, to its end; what that end means, only `wait` tells.

        Raise ProgramFailed (transient) when nothing, on stdout or stderr, comes for `idle_timeout_seconds`.
        """
        while True:
            chunk = self.receive(idle_timeout_seconds)
            if chunk is None:
                return
            if chunk:
                yield chunk

    def receive(self, timeout_seconds: float) -> bytes | None:
        """Return the next bytes of stdout, b"" where only stderr came, None at the end of the stream."""
        if self._unread:
            chunk = self._unread.pop(0)
            self._unread_bytes -= len(chunk)
            return chunk
        if self._ended:
            return None
        self._socket.settimeout(timeout_seconds)
        try:
            return self._receive()
        except TimeoutError:
            raise self.failure(
                f"sent nothing for {timeout_seconds:g} s ({self._connection.describe()})", transient=True
            ) from None

    def write(self, data: bytes | memoryview, *, idle_timeout_seconds: float = 3600) -> None:
        """Write all of the data to the program's stdin.

        What the program prints meanwhile is put aside (up to 64 MiB), so that neither side can wait for the other for ever.
        Raise ProgramFailed when the program has ended, or takes nothing for `idle_timeout_seconds`.
        """
        left = memoryview(data)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLOUT)
        self._socket.settimeout(0)
        while left:
            ready = poll.poll(idle_timeout_seconds * 1000)
            if not ready:
                raise self.failure(
                    f"took nothing for {idle_timeout_seconds:g} s ({self._connection.describe()})", transient=True
                )
            if ready[0][1] & ~select.POLLOUT:
                self._receive_aside()
            if self._ended:
                raise self.failure("ended before it had read all of its input")
            if ready[0][1] & select.POLLOUT:
                left = left[self._send(left[:SEND_BYTES]) :]

    def close_stdin(self) -> None:
        """Tell the program that its input ends here; its output can still be read."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            logger.debug("%s: stdin was closed already: %s", self.name, error)

    def wait(self, timeout_seconds: float) -> int:
        """Return the exit code once the program has ended; stdout nobody read by then is thrown away.

        Raise ProgramFailed (transient) when it has not ended in time, and when its exit code stays unknown or its output
        stops in the middle of a frame: an unknown outcome is a failure.
        """
        deadline = time.monotonic() + timeout_seconds
        self._discard_output(deadline, timeout_seconds)
        if self._frames.cut:
            raise self.failure("lost its connection: the output stops in the middle", transient=True)
        pause_seconds = 0.005
        while self._exit_code is None:
            self._exit_code = self._connection.exit_code()
            if self._exit_code is None:
                if time.monotonic() > deadline:
                    raise self.late(timeout_seconds)
                time.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, 0.5)
        return self._exit_code

    def close(self) -> None:
        """Let the connection go; a program that has not ended is ended inside its container."""
        try:
            if self._exit_code is None and not self._ended_by_itself():
                self._connection.end()
        finally:
            self._connection.close()

    def failure(self, what: str, *, exit_code: int | None = None, transient: bool = False) -> ProgramFailed:
        """Build the error that says what happened to this program, with the end of its stderr."""
        stderr = self.stderr_tail
        said = f": {stderr.strip()[-2000:]}" if stderr.strip() else ""
        return ProgramFailed(
            f"{self.name} {what}{said}",
            command=self.command,
            exit_code_seen=exit_code,
            stderr=stderr,
            transient=transient,
        )

    def _receive(self) -> bytes | None:
        try:
            count = self._socket.recv_into(self._buffer)
        except (ConnectionResetError, BrokenPipeError):
            # Docker closed with some of our input unread; whether that is a failure, the exit code tells.
            count = 0
        if count == 0:
            self._ended = True
            return None
        return self._frames.feed(self._buffer[:count])

    def _receive_aside(self) -> None:
        try:
            self._put_aside(self._receive() or b"")
        except BlockingIOError:
            return

    def _put_aside(self, chunk: bytes) -> None:
        if not chunk:
            return
        self._unread.append(chunk)
        self._unread_bytes += len(chunk)
        if self._unread_bytes > UNREAD_LIMIT_BYTES:
            raise self.failure(f"printed more than {UNREAD_LIMIT_BYTES >> 20} MiB while it was still reading its input")

    def _send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except (ConnectionResetError, BrokenPipeError):
            self._read_last_words()
            raise self.failure("ended before it had read all of its input") from None

    def _read_last_words(self) -> None:
        """Read what the program said before it ended: most likely why."""
        self._socket.settimeout(END_GRACE_SECONDS)
        with suppress(TimeoutError):
            while not self._ended:
                self._put_aside(self._receive() or b"")

    def _discard_output(self, deadline: float, timeout_seconds: float) -> None:
        self._unread.clear()
        while not self._ended:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                self._receive()
            except TimeoutError:
                raise self.late(timeout_seconds) from None
            if time.monotonic() > deadline and not self._ended:
                raise self.late(timeout_seconds)

    def late(self, timeout_seconds: float) -> ProgramFailed:
        """Build the error that says it took too long."""
        return self.failure(f"did not end within {timeout_seconds:g} s ({self._connection.describe()})", transient=True)

    def _ended_by_itself(self) -> bool:
        if not self._ended:
            return False
        try:
            return self._connection.exit_code() is not None
        except BackupError:
            return False
