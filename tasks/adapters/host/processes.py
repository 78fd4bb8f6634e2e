"""The one door through which external programs on the host are run.

Every program gets a timeout, runs in a process group of its own and is ended as a group; secrets named by the caller are
removed from what an error shows.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

import tasks
from tasks.core.errors import BackupError, ProgramFailed

logger = logging.getLogger(__name__)

_PREFECT_SECRET = re.compile(r"PREFECT_\w*(?:AUTH|KEY|PASSWORD|SECRET|TOKEN|CONNECTION_URL|HEADERS)\w*")

Piped: TypeAlias = subprocess.Popen[bytes]
"""A program whose ends are pipes of ours: of `start_piped`."""
STDERR_KEPT_BYTES = 16_384
COMPANION_STOP_SECONDS = 15.0
# As much as an unprivileged user may ask for: fewer switches between the two ends.
PIPE_BYTES = 1 << 20
# Where `python -m` finds our packages, whatever directory we were started in.
PROGRAM_PLACE = Path(tasks.__path__[0]).parent


@dataclass(frozen=True, slots=True)
class Output:
    """What a program printed, after it proved success with exit code 0."""

    stdout: str
    stderr: str


def run(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    without: Collection[str] = (),
    stdin: bytes | None = None,
    secrets: Sequence[str] = (),
    is_prefect: bool = False,
) -> Output:
    """Run a program to its end and return what it printed.

    `environment` is added to ours, from which the variables `without` are taken, and Prefect's passwords unless it is
    a program of Prefect's. Raise ProgramFailed when it cannot be started, exits other than 0, or is still running
    after `timeout_seconds`, when its whole process group is killed.
    """
    begun = _begin(command, directory, environment, without, stdin is not None, secrets, is_prefect)
    return _output_of(begun, timeout_seconds, stdin)


def run_side_by_side(
    commands: Sequence[Sequence[str]],
    *,
    timeout_seconds: float,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> list[Output | ProgramFailed]:
    """Run programs that do not wait for each other; give what each printed, or why it failed, in their order.

    Programs that each take moments, asked for together, take those of the slowest. As `run`, all end within `timeout_seconds`.
    """
    begun: list[_Begun | ProgramFailed] = []
    try:
        for command in commands:
            try:
                begun.append(_begin(command, directory, environment, without))
            except ProgramFailed as error:
                begun.append(error)
        deadline = time.monotonic() + timeout_seconds
        return [_told(each, max(deadline - time.monotonic(), 0.0)) for each in begun]
    except BaseException:
        for each in begun:
            if isinstance(each, _Begun) and each.process.returncode is None:
                end_group(each.process)
        raise


def _told(begun: _Begun | ProgramFailed, timeout_seconds: float) -> Output | ProgramFailed:
    if isinstance(begun, ProgramFailed):
        return begun
    try:
        return _output_of(begun, timeout_seconds, None)
    except ProgramFailed as error:
        return error


@dataclass(frozen=True, slots=True)
class _Begun:
    """A program that was started, the words to show of it, and the secrets to take from what it prints."""

    process: Piped
    shown: tuple[str, ...]
    secrets: Sequence[str]


def _begin(
    command: Sequence[str],
    directory: Path | None,
    environment: Mapping[str, str] | None,
    without: Collection[str],
    feed: bool = False,
    secrets: Sequence[str] = (),
    is_prefect: bool = False,
) -> _Begun:
    shown = tuple(_without(secrets, word) for word in command)
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env={**_own_environment(without, is_prefect=is_prefect), **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramFailed(
            f"cannot start {shown[0]}: {error.strerror}", command=shown, hint=f"is {shown[0]} installed and on PATH?"
        ) from error
    return _Begun(process, shown, secrets)


def _output_of(begun: _Begun, timeout_seconds: float, stdin: bytes | None) -> Output:
    process, shown, secrets = begun.process, begun.shown, begun.secrets
    try:
        out, err = process.communicate(stdin, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        end_group(process)
        raise ProgramFailed(
            f"{' '.join(shown)} did not end within {timeout_seconds:g} s and was killed", command=shown, transient=True
        ) from None
    except BaseException:
        end_group(process)
        raise
    stderr = _without(secrets, err.decode(errors="replace"))[-STDERR_KEPT_BYTES:]
    if process.returncode != 0:
        raise ProgramFailed(
            f"{' '.join(shown)} failed with exit code {process.returncode}: {stderr.strip() or '(no message)'}",
            command=shown,
            exit_code_seen=process.returncode,
            stderr=stderr,
        )
    return Output(out.decode(errors="replace"), stderr)


def become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Go on as another program in this very process, with `environment` added to ours.

    For service managers, which watch the process that they start.
    """
    os.execve(command[0], list(command), {**os.environ, **environment})


def start_detached(command: Sequence[str], *, pass_fds: Sequence[int] = (), directory: Path | None = None) -> int:
    """Start a program that outlives us, in a session of its own with no terminal; return its process id."""
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=directory,
        env=_own_environment(),
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    )
    return process.pid


@contextmanager
def start_companion(command: Sequence[str], *, ready_seconds: float) -> Iterator[str]:
    """Run a program of ours that serves us until the block ends, and give the first line it says: that it is ready.

    It ends when its stdin does, so it cannot outlive us. Raise BackupError where it says nothing in time, or what went wrong ("error ...").
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROGRAM_PLACE,
        env=_own_environment(),
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        line = process.stdout.readline().decode(errors="replace").strip() if poll.poll(ready_seconds * 1000) else ""
        if not line or line.startswith("error "):
            raise BackupError(
                line.removeprefix("error ") or f"{' '.join(command[1:3])} said nothing within {ready_seconds:g} s",
                hint="try again; is memory short?",
                transient=True,
            )
        yield line
    finally:
        process.stdin.close()
        try:
            process.wait(COMPANION_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            end_group(process)
        process.stdout.close()


@contextmanager
def start_piped(
    command: Sequence[str],
    *,
    feed: bool = False,
    read: bool = False,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    directory: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program whose stderr, and stdin or stdout where asked, are pipes of ours; what still runs at the block's end is killed.

    Raise ProgramFailed where it cannot be started. How it ended is for the block to look at.
    """
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=subprocess.PIPE if read else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=directory,
            env={**_own_environment(), **(environment or {})},
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
    except OSError as error:
        raise ProgramFailed(
            f"cannot start {command[0]}: {error.strerror}", command=tuple(command), hint="is it installed?"
        ) from error
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # a user may have too many of that size
            if pipe is not None:
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(COMPANION_STOP_SECONDS)
        for each in (process.stdin, process.stdout, process.stderr):
            if each is not None:
                with suppress(OSError):
                    each.close()


def exit_code(process: Piped, *, seconds: float) -> int | None:
    """Wait for a piped program to end, and give its exit code; None where it does not within so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


@dataclass(frozen=True, slots=True)
class Background:
    """A program that runs beside us, in a process group of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def is_running(self) -> bool:
        """Tell whether it has not ended yet."""
        return self.process.poll() is None


@contextmanager
def start_background(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    stop_seconds: float = 40.0,
    pass_fds: Sequence[int] = (),
) -> Iterator[Background]:
    """Run a program, its output in a file of mode 0600, until the block ends; then ask it to end, and kill its group if it does not.

    `stop_seconds` is how long it may take to end by itself: a flow that is under way gives back what it borrowed.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env={**os.environ, **environment},
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
    finally:
        os.close(descriptor)
    try:
        yield Background(process, log)
    finally:
        process.terminate()
        try:
            process.wait(stop_seconds)
        except subprocess.TimeoutExpired:
            end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and everything it started, and collect it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired as error:
        raise BackupError(
            f"process {process.pid} cannot be killed", hint="is it stuck on a dead file system?"
        ) from error


def _own_environment(without: Collection[str] = (), *, is_prefect: bool = False) -> dict[str, str]:
    """Give our environment to a program that we start: Docker's need not know what opens Prefect's server and its database."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in without and (is_prefect or not _PREFECT_SECRET.fullmatch(name))
    }


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "*****")
    return text
