"""A FIFO in the server's container: pg_dump's bytes, past Docker's stream."""

from __future__ import annotations

import fcntl
import logging
import os
import select
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tasks.adapters.engine import client, containers
from tasks.adapters.engine.exec_stream import Program
from tasks.core.errors import BackupError
from tasks.core.stack.installation import Installation

logger = logging.getLogger(__name__)

PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 20
# A writer of 4 KiB pieces would wake us for each of them; a millisecond lets the pipe fill instead.
GATHER_SECONDS = 0.001
SHARED_MEMORY = ("dev", "shm")


@dataclass(frozen=True, slots=True)
class Fifo:
    path: str  # as the container sees it
    descriptor: int


@contextmanager
def fifo(installation: Installation) -> Iterator[Fifo | None]:
    """Make a FIFO in the container's own shared memory, or give None where we cannot reach it from here."""
    directory = shared_memory(installation)
    if directory is None:
        yield None
        return
    _release_left_fifos(directory)
    name = f"mailarchiver-backup-{uuid.uuid4().hex}.fifo"
    try:
        try:
            os.mkfifo(name, 0o600, dir_fd=directory)
            os.chown(name, os.fstat(directory).st_uid, -1, dir_fd=directory, follow_symlinks=False)
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=directory)
        except OSError as error:
            logger.debug("no FIFO in the container's shared memory: %s", error)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            yield None
            return
        try:
            if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                raise BackupError(
                    "the FIFO in the container's shared memory was replaced", hint="who else works in there?"
                )
            with suppress(OSError):  # the limit for pipes may be lower; then it is only slower
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            yield Fifo(f"/{'/'.join(SHARED_MEMORY)}/{name}", descriptor)
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
    finally:
        os.close(directory)


def _release_left_fifos(directory: int) -> None:
    """Remove the FIFOs of killed runs; a pg_dump that waits for its reader to this day finds one that is gone, and ends.

    The installation's lock sees to it that no living run dumps in this container.
    """
    for name in os.listdir(directory):
        if name.startswith("mailarchiver-backup-") and name.endswith((".fifo", ".pgpass")):
            with suppress(OSError):
                descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=directory)
                os.unlink(name, dir_fd=directory)
                os.close(descriptor)


def shared_memory(installation: Installation) -> int | None:
    """Open the container's /dev/shm through /proc, following no link on the way; None where that is not ours to do."""
    if os.geteuid() != 0 or not client.engine_is_local():
        return None
    container = containers.container(installation.postgres.container_id)
    if container is None or container.pid <= 0:
        return None
    try:
        current = os.open(f"/proc/{container.pid}/root", os.O_RDONLY | os.O_DIRECTORY)
        for part in SHARED_MEMORY:
            try:
                deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            finally:
                os.close(current)
            current = deeper
    except OSError as error:
        logger.debug("cannot see the container's shared memory from here: %s", error)
        return None
    return current


def read_fifo(descriptor: int, program: Program, idle_timeout_seconds: float) -> Iterator[bytes]:
    """Yield what the program writes into the FIFO until it closes it, or ends without ever having opened it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(program.fileno(), select.POLLIN)
    opened = False
    while True:
        chunk = _read(descriptor)
        if chunk:
            opened = True
            yield chunk
            if len(chunk) < READ_BYTES // 8:
                time.sleep(GATHER_SECONDS)
            continue
        if chunk == b"" and opened:
            return
        ready = dict(poll.poll(idle_timeout_seconds * 1000))
        if not ready:
            raise program.failure(f"sent nothing for {idle_timeout_seconds:g} s", transient=True)
        if program.fileno() in ready and program.receive(idle_timeout_seconds) is None:
            while chunk := _read(descriptor):
                yield chunk
            return


def _read(descriptor: int) -> bytes | None:
    """Read what is there: b"" where no writer is, None where a writer has nothing yet."""
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return None
