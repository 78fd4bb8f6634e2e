"""GNU tar, which keeps all that a file system holds: owners as numbers, modes, times, extended attributes, ACLs, links, devices, holes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.adapters.host.processes import Piped, exit_code, start_piped
from tasks.core.errors import BackupError, ProgramFailed, Refused
from tasks.core.units import duration_text

CHUNK_BYTES = 1 << 20
END_SECONDS = 60.0
STDERR_KEPT_BYTES = 16_384
_ALIKE = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls"]
_CREATE = [
    "--create", "--file=-", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--sparse", "--one-file-system",
    "--sort=none", "--warning=no-file-ignored",
]  # fmt: skip
_EXTRACT = [
    "--extract",
    "--file=-",
    "--same-owner",
    "--preserve-permissions",
    "--delay-directory-restore",
]
_ENGLISH = {"LC_ALL": "C", "TAR_OPTIONS": ""}


def require_tar() -> None:
    """Raise Refused where GNU tar is missing."""
    if shutil.which("tar") is None:
        raise Refused("GNU tar is not on this host", hint="install it: apt-get install tar")


def packed_disk(file: Path, *, limit_seconds: float) -> Iterator[bytes]:
    """Give a disk's file as a tar stream, zeros as holes; attributes that libvirt has given it are its own, and stay here."""
    return packed(
        file.parent, [f"./{file.name}"], limit_seconds=limit_seconds, more=("--hole-detection=raw",), alike=()
    )


def packed(
    directory: Path,
    members: Sequence[str] = (".",),
    *,
    limit_seconds: float,
    more: Sequence[str] = (),
    alike: Sequence[str] = _ALIKE,
) -> Iterator[bytes]:
    """Give a directory, or some files in it, as a tar stream with all that is to be `alike`; what lies on another file system is left out, and sockets are.

    Raise BackupError where anything could not be read, changed meanwhile, or took longer than it may.
    """
    deadline = time.monotonic() + limit_seconds
    command = ["tar", *_CREATE, *more, *alike, f"--directory={directory}", "--", *members]
    with start_piped(command, read=True, environment=_ENGLISH) as process, _listening(process) as said:
        assert process.stdout is not None
        while chunk := process.stdout.read(CHUNK_BYTES):
            if time.monotonic() > deadline:
                raise BackupError(
                    f"copying {directory} takes longer than the {duration_text(limit_seconds)} that it may",
                    hint="raise `limit_hours`, if so much is to be copied",
                )
            yield chunk
        _require_success(process, command, said, f"{directory} could not be copied whole")


class Unpacking:
    """A tar stream on its way into a directory; made by `unpacked`."""

    def __init__(self, process: Piped, command: Sequence[str], said: list[bytes]) -> None:
        self._process, self._command, self._said = process, command, said

    def write(self, pieces: Iterator[bytes]) -> None:
        """Take the whole stream; raise BackupError where it cannot be unpacked."""
        assert self._process.stdin is not None
        try:
            for piece in pieces:
                self._process.stdin.write(piece)
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it says why
        _require_success(self._process, self._command, self._said, "the files could not be unpacked")


@contextmanager
def unpacked(directory: Path) -> Iterator[Unpacking]:
    """Give what takes a tar stream and unpacks it into an empty directory."""
    command = ["tar", *_EXTRACT, *_ALIKE, f"--directory={directory}"]
    with start_piped(command, feed=True, environment=_ENGLISH) as process, _listening(process) as said:
        yield Unpacking(process, command, said)


@contextmanager
def _listening(process: Piped) -> Iterator[list[bytes]]:
    """Keep what a program says, its beginning alone, so that it never waits for us to listen."""
    said: list[bytes] = []

    def listen() -> None:
        kept = 0
        try:
            for line in process.stderr or ():
                if kept < STDERR_KEPT_BYTES:
                    said.append(line)
                    kept += len(line)
        except ValueError:  # closed: nobody asks any more
            pass

    thread = threading.Thread(target=listen, name="tar's words", daemon=True)
    thread.start()
    try:
        yield said
    finally:
        if process.poll() is not None:
            thread.join(END_SECONDS)


def _require_success(process: Piped, command: Sequence[str], said: list[bytes], what: str) -> None:
    code = exit_code(process, seconds=END_SECONDS)
    if code is None:
        raise BackupError(f"{what}: tar does not end", hint="is a file system stuck?")
    if code != 0:
        text = b"".join(said[:3]).decode(errors="replace").strip()
        raise ProgramFailed(
            f"{what}: {text or f'tar ended with exit code {code}'}", command=tuple(command), exit_code_seen=code, stderr=text,
            hint="see whether the disk is full or damaged, and whether something writes there",
        )  # fmt: skip
