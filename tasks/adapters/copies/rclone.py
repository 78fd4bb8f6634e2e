"""The door to rclone: list, send, read and remove files at a target.

What it needs to log in stands in its own configuration file alone; its words are told without what that keeps secret.
"""

from __future__ import annotations

import json
import os
import select
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from tasks.adapters.copies.rclone_program import NO_CONFIG, config_secrets, rclone_program
from tasks.adapters.host.processes import run, start_piped
from tasks.core.copies.parts import RemoteFile
from tasks.core.copies.rclone_words import (
    NOT_FOUND_CODES,
    bytes_told,
    fault_of,
    last_words,
    read_log_line,
    without_secrets,
)
from tasks.core.errors import BackupError, ProgramFailed
from tasks.core.policy.copy_places import is_directory, place_below

LIST_SECONDS = 300.0
FETCH_SECONDS = 1800.0
IDLE_SECONDS = 300.0
FILES_LIMIT = 200_000
_LOG_LINES = 50
_PIPE_BYTES = 1 << 20
# The hashes that we know to compute, the best first.
HASHES = ("sha256", "sha1", "md5")
_BOUNDS = (
    "--ask-password=false", "--auto-confirm=false", "--contimeout", "20s", "--timeout", "60s", "--retries", "1", "--low-level-retries", "3",
    "--use-json-log", "--log-level", "NOTICE", "--stats", "1s", "--stats-log-level", "NOTICE", "--s3-no-check-bucket",
    # One request for a file, whose digest the server then checks and keeps.
    "--s3-upload-cutoff", "5G",
)  # fmt: skip


class TargetFailed(BackupError):
    """A target could not be used. `is_refusal` where it said no to us, `is_missing` where there is no such file or directory."""

    def __init__(self, message: str, *, hint: str, transient: bool, is_refusal: bool, is_missing: bool = False) -> None:
        super().__init__(message, hint=hint, transient=transient)
        self.is_refusal = is_refusal
        self.is_missing = is_missing


@dataclass(frozen=True, slots=True)
class Remote:
    """A target as rclone reaches it: its name for people, its place, rclone's configuration, and what it may take in a second."""

    target: str
    place: str
    config: Path
    bandwidth: int | None = None
    idle_seconds: float = IDLE_SECONDS
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def command(self, *words: str) -> list[str]:
        """Write a command line; no secret is ever in one."""
        config = NO_CONFIG if is_directory(self.place) else str(self.config)
        limit = ["--bwlimit", f"{self.bandwidth}B"] if self.bandwidth else []
        return [rclone_program(), "--config", config, *_BOUNDS, *limit, *words]

    def below(self, name: str) -> str:
        """Give the place of a file."""
        return place_below(self.place, name)

    def failed(self, doing: str, said: str, code: int | None) -> TargetFailed:
        """Put rclone's words into ours."""
        fault = fault_of(said)
        detail = without_secrets(said, self.secrets) or f"rclone ended with {code} and said nothing"
        return TargetFailed(
            f"target {self.target} {fault.what} ({doing}): {detail}",
            hint=fault.hint,
            transient=fault.transient,
            is_refusal=fault.is_refusal,
            is_missing=code in NOT_FOUND_CODES,
        )


def reach(target: str, place: str, config: Path, *, bandwidth: int | None = None) -> Remote:
    """Give a target as rclone reaches it. Raise UsageError or Refused where rclone or its configuration is not fit for use."""
    return Remote(target, place, config, bandwidth, secrets=config_secrets(place, config))


def list_files(remote: Remote) -> list[RemoteFile]:
    """List the files of a target, not of directories in it; none where there is no such directory yet."""
    words = ("lsjson", "--files-only", "--no-modtime", "--no-mimetype", "--max-depth", "1", remote.place)
    try:
        said = _run(remote, "list", *words)
    except TargetFailed as error:
        if error.is_missing:
            return []
        raise
    files = [_file(each) for each in json.loads(said)]
    if len(files) > FILES_LIMIT:
        raise BackupError(
            f"target {remote.target} holds more than {FILES_LIMIT:,} files",
            hint="give the copies a directory of their own",
        )
    return files


def best_hash(remote: Remote) -> str:
    """Name the hash by which a target's files are compared; "" where it knows none that we do."""
    known = json.loads(_run(remote, "ask", "backend", "features", remote.place)).get("Hashes") or ()
    return next((each for each in HASHES if each in known), "")


def describe(remote: Remote, name: str, hash_name: str = "") -> RemoteFile:
    """Look at one file of a target: its size, its lock, and its hash of this name where the target has one."""
    wanted = ("--hash", "--hash-type", hash_name) if hash_name else ()
    said = _run(remote, "look", "lsjson", "--stat", *wanted, "--metadata", "--no-mimetype", remote.below(name))
    return _file(json.loads(said))


def send(
    remote: Remote,
    name: str,
    pieces: Iterable[bytes],
    size: int,
    *,
    locked_until: datetime | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Send a file, telling `on_bytes` how much of it rclone has transferred. What an interrupted one left is no file, or a short one."""
    command = remote.command("rcat", "--size", str(size), *_lock(locked_until), remote.below(name))
    with start_piped(command, feed=True) as process, _Log(process.stderr, on_bytes) as log:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and says why
            _feed(process.stdin, pieces, log, remote)
        with suppress(BrokenPipeError):
            process.stdin.close()
        while process.poll() is None:
            log.require_progress(remote)
            time.sleep(0.02)
    if process.returncode != 0:
        raise remote.failed(f"send {name}", log.words(), process.returncode)


def put(remote: Remote, name: str, content: bytes, *, locked_until: datetime | None = None) -> None:
    """Send a small file in place of what is there by this name: a reader, and anyone who comes after our death, never finds half of it.

    A target that writes where it is told to (SFTP, a directory) gets it under another name first, which rclone then gives its own.
    An SFTP server without `posix-rename` (OpenSSH's has it) takes the old one away before: for that moment there is none,
    and after a death in it none until the next run sends it again.
    """
    with tempfile.TemporaryDirectory(prefix="mailarchiver-backup-sent-") as place:
        source = Path(place, "content")
        source.write_bytes(content)
        words = ("copyto", "--ignore-times", *_lock(locked_until), str(source), remote.below(name))
        _run(remote, f"send {name}", *words, timeout_seconds=FETCH_SECONDS)


def lock_longer(remote: Remote, name: str, until: datetime) -> None:
    """Have a target keep a file that is there until a later moment: it copies it onto itself, under the new lock.

    Nothing but the request goes over the network. The former version keeps its own lock, and ends with it.
    """
    # Set afterwards, as a configuration may ask for uploads, a copy's lock would not be set at all.
    words = ("touch", "--no-create", "--s3-object-lock-set-after-upload=false", *_lock(until))
    _run(remote, f"lock {name}", *words, remote.below(name))


def remove(remote: Remote, name: str) -> None:
    """Remove a file; one that is not there is no failure."""
    try:
        _run(remote, "remove", "deletefile", remote.below(name))
    except TargetFailed as error:
        if not error.is_missing:
            raise


def fetch(remote: Remote, names: Sequence[str], into: Path) -> None:
    """Bring small files of a target into a directory of ours."""
    words = (
        "copy",
        "--files-from-raw",
        "-",
        "--no-traverse",
        "--ignore-times",
        "--max-transfer",
        "2G",
        remote.place,
        str(into),
    )
    _run(remote, "fetch", *words, stdin="".join(f"{each}\n" for each in names).encode(), timeout_seconds=FETCH_SECONDS)


@contextmanager
def reading(remote: Remote, file: RemoteFile) -> Iterator[Iterator[bytes]]:
    """Give the bytes of a file as they come; raise TargetFailed where they end too early or nothing comes for long."""
    command = remote.command("cat", remote.below(file.name))
    with start_piped(command, read=True) as process, _Log(process.stderr) as log:
        assert process.stdout is not None

        def pieces(stream: IO[bytes]) -> Iterator[bytes]:
            poll, count = select.poll(), 0
            poll.register(stream, select.POLLIN)
            while True:
                if not poll.poll(remote.idle_seconds * 1000):
                    raise _stalled(remote)
                piece = os.read(stream.fileno(), _PIPE_BYTES)
                if not piece:
                    break
                count += len(piece)
                yield piece
            code = process.wait(remote.idle_seconds)
            if code != 0:
                raise remote.failed(f"read {file.name}", log.words(), code)
            if count != file.bytes:
                raise remote.failed(f"read {file.name}", f"unexpected EOF: {count:,} of {file.bytes:,} bytes", code)

        yield pieces(process.stdout)


def _feed(stdin: IO[bytes], pieces: Iterable[bytes], log: _Log, remote: Remote) -> None:
    descriptor = stdin.fileno()
    os.set_blocking(descriptor, False)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    for piece in pieces:
        view = memoryview(piece)
        while view:
            if not poll.poll(1000):
                log.require_progress(remote)
                continue
            with suppress(BlockingIOError):
                view = view[os.write(descriptor, view) :]
                log.moved()


class _Log:
    """Read rclone's log as it comes: the bytes it has transferred, and its last words."""

    def __init__(self, stderr: IO[bytes] | None, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        assert stderr is not None
        self._stderr, self._on_bytes = stderr, on_bytes
        self._lines: list[dict[str, Any]] = []
        self._bytes = 0
        self._moved_at = time.monotonic()
        self._thread = threading.Thread(target=self._read, name="rclone-log", daemon=True)

    def __enter__(self) -> _Log:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(1)

    def moved(self) -> None:
        """Note that bytes went on their way."""
        self._moved_at = time.monotonic()

    def require_progress(self, remote: Remote) -> None:
        """Raise TargetFailed where nothing has moved for long."""
        if time.monotonic() - self._moved_at > remote.idle_seconds:
            raise _stalled(remote)

    def words(self) -> str:
        """Give what tells why rclone failed, once it has ended."""
        self._thread.join(5)
        return last_words(self._lines)

    def _read(self) -> None:
        with suppress(OSError, ValueError):  # closed at the end of the block
            for line in self._stderr:
                entry = read_log_line(line[:65_536])
                told = bytes_told(entry)
                if told is None:
                    self._lines = [*self._lines[-_LOG_LINES:], entry]
                elif told > self._bytes:
                    self._bytes = told
                    self.moved()
                    self._on_bytes(told)


def _lock(until: datetime | None) -> tuple[str, ...]:
    if until is None:
        return ()
    moment = f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return ("--s3-object-lock-mode", "COMPLIANCE", "--s3-object-lock-retain-until-date", moment)


def _stalled(remote: Remote) -> TargetFailed:
    return TargetFailed(
        f"target {remote.target} took or gave nothing for {remote.idle_seconds:g} s", hint="is its network up?", transient=True, is_refusal=False
    )  # fmt: skip


def _run(
    remote: Remote, doing: str, *words: str, stdin: bytes | None = None, timeout_seconds: float = LIST_SECONDS
) -> str:
    try:
        return run(remote.command(*words), timeout_seconds=timeout_seconds, stdin=stdin, secrets=remote.secrets).stdout
    except ProgramFailed as error:
        if error.exit_code_seen is None:
            raise
        entries = [read_log_line(line) for line in error.stderr.encode().splitlines()]
        raise remote.failed(
            doing, last_words(each for each in entries if "stats" not in each), error.exit_code_seen
        ) from None


def _file(found: dict[str, Any]) -> RemoteFile:
    metadata = found.get("Metadata") or {}
    until = (
        metadata.get("object-lock-retain-until-date", "") if metadata.get("object-lock-mode") == "COMPLIANCE" else ""
    )
    locked_until = None
    with suppress(ValueError):
        locked_until = datetime.fromisoformat(until) if until else None
    return RemoteFile(str(found["Name"]), int(found["Size"]), dict(found.get("Hashes") or {}), locked_until)
