"""Encrypt and decrypt age files: small ones here by the library, large ones in a process of its own.

That process is the program `age` where it is installed (1 GB in 0.7 s of one core); else one of ours with the library (1.7 s), which holds Python's
lock while it works. Both write and read the same format.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pyrage

from tasks.adapters.archive.age_keys import identities_of, recipients_of
from tasks.adapters.archive.age_process import NO_KEY
from tasks.adapters.host.files import BytesLike
from tasks.adapters.host.processes import PROGRAM_PLACE, start_piped
from tasks.core.errors import ArchiveDamaged, BackupError, NoKey

PROGRAM = "age"
PROGRAM_NO_KEY = "no identity matched"
SMALL_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
_END_SECONDS = 60.0
_STDERR_BYTES = 4096

_filter = functools.partial(start_piped, feed=True, read=True, directory=PROGRAM_PLACE)


def encrypt(data: bytes, recipients: Sequence[str]) -> bytes:
    """Encrypt something small; raise BackupError where a recipient cannot be encrypted to."""
    try:
        return bytes(pyrage.encrypt(data, recipients_of(recipients)))
    except (pyrage.EncryptError, pyrage.RecipientError) as error:
        raise _cannot_encrypt(str(error)) from error


def decrypt(data: bytes, identities: Sequence[str]) -> bytes:
    """Decrypt something small; raise NoKey where no identity opens it, ArchiveDamaged where it is not what was encrypted."""
    try:
        return bytes(pyrage.decrypt(data, identities_of(identities)))
    except (pyrage.DecryptError, pyrage.EncryptError, pyrage.IdentityError) as error:
        raise _cannot_decrypt(str(error)) from error


class Encryption:
    """One age file that is being made: what is written comes out encrypted at `sink`, which a thread calls."""

    def __init__(self, recipients: Sequence[str], sink: Callable[[bytes], object]) -> None:
        self._recipients = tuple(recipients)
        self._sink = sink
        self._held = bytearray()
        self._stack = ExitStack()
        self._large = False
        self._error: BaseException | None = None

    def write(self, data: BytesLike) -> None:
        """Encrypt more; raise BackupError where that, or the sink before, failed."""
        if self._large:
            self._feed(data)
            return
        self._held += data
        if len(self._held) > SMALL_BYTES:
            self._start()

    def end(self) -> None:
        """Encrypt what is left and give it all to the sink."""
        if not self._large:
            self._sink(encrypt(bytes(self._held), self._recipients))
            return
        with self._stack:
            self._close_input()
            self._thread.join()
            self._raise()
            code = self._process.wait(_END_SECONDS)
            if code != 0:
                raise _cannot_encrypt(self._said())

    def abandon(self) -> None:
        """Stop without an end; what the sink got is worth nothing."""
        if self._large:
            self._stack.close()
            self._thread.join()

    def _start(self) -> None:
        program = shutil.which(PROGRAM)
        command = [program, *_recipient_options(self._recipients)] if program else _own_command("encrypt")
        self._process = self._stack.enter_context(_filter(command))
        self._thread = threading.Thread(target=self._drain, name="age-encrypt", daemon=True)
        self._thread.start()
        self._large = True
        if not program:
            self._feed(_keys_line(self._recipients))
        self._feed(self._held)
        self._held = bytearray()

    def _feed(self, data: BytesLike) -> None:
        self._raise()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except (OSError, ValueError) as error:
            self._raise()
            raise _cannot_encrypt(self._said()) from error

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def _drain(self) -> None:
        """Carry what comes out to the sink; after a failure go on reading, so that nobody waits for a full pipe."""
        assert self._process.stdout is not None
        with suppress(OSError, ValueError):
            while piece := self._process.stdout.read1(_PIECE_BYTES):  # type: ignore[attr-defined]
                if self._error is None:
                    try:
                        self._sink(piece)
                    except BaseException as error:  # noqa: BLE001 - raised again by the next call
                        self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _said(self) -> str:
        return _last_words(self._process)


def decrypted(pieces: Iterator[bytes], identities: Sequence[str]) -> Iterator[bytes]:
    """Decrypt one large age file as it comes; what was given counts only when the iterator ends.

    Raise as `decrypt` does, at the end perhaps: a file that is cut gives nearly all of its content first.
    """
    program = shutil.which(PROGRAM)
    with ExitStack() as stack:
        if program:
            keys = stack.enter_context(_in_memory(identities))
            options = [word for each in keys for word in ("--identity", f"/proc/self/fd/{each}")]
            process = stack.enter_context(_filter([program, "--decrypt", *options], pass_fds=keys))
        else:
            process = stack.enter_context(_filter(_own_command("decrypt")))
        assert process.stdin is not None
        assert process.stdout is not None
        failed: list[BaseException] = []
        stdin = process.stdin

        def feed() -> None:
            try:
                if not program:
                    stdin.write(_keys_line(identities))
                for piece in pieces:
                    stdin.write(piece)
            except (BrokenPipeError, ValueError):
                pass  # it has ended, and says why
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed.append(error)
            finally:
                with suppress(OSError, ValueError):
                    stdin.close()

        thread = threading.Thread(target=feed, name="age-decrypt", daemon=True)
        thread.start()
        try:
            while piece := process.stdout.read1(_PIECE_BYTES):  # type: ignore[attr-defined]
                yield piece
            code = process.wait(_END_SECONDS)
        finally:
            process.kill()
            thread.join()
        if failed:
            raise failed[0]
        if code != 0:
            raise _cannot_decrypt(_last_words(process))


def _recipient_options(recipients: Sequence[str]) -> list[str]:
    return ["--encrypt", *(word for each in recipients for word in ("--recipient", each))]


@contextmanager
def _in_memory(identities: Sequence[str]) -> Iterator[list[int]]:
    """Lend files that lie in memory and have no name, each with one identity."""
    descriptors: list[int] = []
    try:
        for each in identities:
            descriptors.append(os.memfd_create("identity", os.MFD_CLOEXEC))
            os.write(descriptors[-1], each.rstrip().encode() + b"\n")
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _own_command(direction: str) -> list[str]:
    return [sys.executable, "-m", "tasks.adapters.archive.age_process", direction]


def _keys_line(keys: Sequence[str]) -> bytes:
    return json.dumps(list(keys)).encode() + b"\n"


def _last_words(process: object) -> str:
    stderr = getattr(process, "stderr", None)
    said = stderr.read(_STDERR_BYTES) if stderr is not None else b""
    lines = [
        each for each in said.decode(errors="replace").splitlines() if each.strip() and "report unexpected" not in each
    ]
    return lines[-1].removeprefix("age: error: ") if lines else "the process that encrypts was killed"


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2068", "").replace("\u2069", "").split())


def _cannot_encrypt(said: str) -> BackupError:
    return BackupError(
        f"the archive cannot be encrypted: {_plain(said)}",
        hint="look at encryption.recipients in the settings; a plugin's recipient wants its program (age-plugin-NAME) on PATH",
    )


def _cannot_decrypt(said: str) -> BackupError:
    if NO_KEY in said or PROGRAM_NO_KEY in said:
        return NoKey("no key that was given opens it")
    if "PATH" in said:
        return NoKey(f"the key's plugin is missing: {_plain(said)}")
    return ArchiveDamaged(f"it was altered or cut off ({_plain(said)})")
