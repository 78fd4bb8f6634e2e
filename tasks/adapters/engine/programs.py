"""Programs in a running container: started, followed, and ended with all that they started."""

from __future__ import annotations

import logging
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import docker
import docker.context
import docker.errors
import docker.utils

from tasks.adapters.engine.client import api_client, in_our_words, new_api_client
from tasks.adapters.engine.containers import container, container_name, describe_container
from tasks.adapters.engine.exec_stream import END_GRACE_SECONDS, Connection, Program
from tasks.adapters.host.processes import Output
from tasks.core.errors import BackupError, ProgramFailed

logger = logging.getLogger(__name__)

PROGRAM_MARK = "MAILARCHIVER_BACKUP_PROGRAM"
# Run as the program's own user: reading another user's environment needs a capability that containers lack.
# PostgreSQL is process 1 of its container, and takes any orphan that dies by a signal for a crashed server process: it then restarts
# all of them. So no orphan may be made: one process at a time, always one that has no children here (of several the oldest, which a
# shell does not wait for), and the next when its parent has taken notice of its end. What is an orphan already (parent 1) is left alone.
_END_MARKED_PROGRAMS = r"""
asked=' '
for round in $(seq 100); do
  found= parents=' '
  for directory in /proc/[0-9]*; do
    if tr '\0' '\n' <"$directory/environ" 2>/dev/null | grep -qx "$1"; then
      parent=$(sed -n 's/^PPid:[^0-9]*//p' "$directory/status" 2>/dev/null)
      case $parent in '' | 1) continue ;; esac
      found="$found ${directory#/proc/}" parents="$parents$parent "
    fi
  done
  chosen=
  for process in $found; do
    case $parents in *" $process "*) continue ;; esac
    if [ -z "$chosen" ] || [ "$process" -lt "$chosen" ]; then chosen=$process; fi
  done
  [ -n "$chosen" ] || exit 0
  case $asked in
    *" $chosen "*) kill -KILL "$chosen" 2>/dev/null ;;
    *) kill -TERM "$chosen" 2>/dev/null ;;
  esac
  asked="$asked$chosen "
  for wait in $(seq 20); do
    [ -e "/proc/$chosen" ] || break
    sleep 0.05
  done
done
"""


def start_program(
    container_id: str,
    argv: Sequence[str],
    *,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: bool = False,
) -> Program:
    """Start a program inside a running container; the caller closes it (it is a context manager).

    Without `stdin` its input is empty. Raise BackupError where the container does not run.
    """
    mark = uuid.uuid4().hex
    marked = {**(environment or {}), PROGRAM_MARK: mark}
    with in_our_words(f"run {argv[0]} in container {container_name(container_id)}"):
        # A connection of its own: the program's bytes travel on it, and it closes with the program.
        client = new_api_client(api_client().api_version)
        try:
            created = client.exec_create(container_id, list(argv), stdin=stdin, user=user or "", environment=marked)
            exec_id = created["Id"]
            connected, already_read, close = _attach(client, exec_id)
        except BaseException:
            client.close()
            raise

    connection = Connection(
        socket=connected,
        already_read=already_read,
        exit_code=lambda: _exit_code(exec_id, argv[0]),
        describe=lambda: describe_container(container_id),
        end=lambda: _end_marked(container_id, f"{PROGRAM_MARK}={mark}", user),
        close=close,
    )
    return Program(connection, tuple(argv))


def run_program(
    container_id: str,
    argv: Sequence[str],
    *,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout_seconds: float = 60,
    secrets: Sequence[str] = (),
) -> Output:
    """Run a program inside a container to its end and return what it printed (for small outputs).

    Raise ProgramFailed when it exits other than 0, with its exit code and stderr, and when it takes longer than the timeout,
    after ending it. The `secrets` are removed from what the error shows.
    """
    deadline = time.monotonic() + timeout_seconds
    shown = tuple(_without(secrets, word) for word in argv)
    printed = bytearray()
    try:
        with start_program(container_id, argv, user=user, environment=environment, stdin=stdin is not None) as program:
            if stdin is not None:
                program.write(stdin, idle_timeout_seconds=timeout_seconds)
                program.close_stdin()
            while (chunk := _receive_before(deadline, program, timeout_seconds)) is not None:
                printed += chunk
            code = program.wait(max(0.001, deadline - time.monotonic()))
            stderr = _without(secrets, program.stderr_tail)
    except ProgramFailed as error:
        raise ProgramFailed(
            _without(secrets, error.message),
            command=shown,
            exit_code_seen=error.exit_code_seen,
            stderr=_without(secrets, error.stderr),
            transient=error.transient,
        ) from None
    stdout = printed.decode(errors="replace")
    if code != 0:
        # Where the program could not be started at all, Docker says so on stdout.
        said = stderr.strip() or _without(secrets, stdout).strip()[-2000:] or "(no message)"
        raise ProgramFailed(
            f"{shown[0]} in container {container_name(container_id)} failed with exit code {code}: {said}",
            command=shown,
            exit_code_seen=code,
            stderr=stderr,
        )
    return Output(stdout, stderr)


def _receive_before(deadline: float, program: Program, timeout_seconds: float) -> bytes | None:
    left_seconds = deadline - time.monotonic()
    try:
        if left_seconds > 0:
            return program.receive(left_seconds)
    except ProgramFailed:
        if time.monotonic() < deadline:
            raise
    raise program.late(timeout_seconds)


def _attach(client: docker.APIClient, exec_id: str) -> tuple[socket.socket, bytes, Callable[[], None]]:
    """Start a prepared program; return its socket, what Python's HTTP reader had already taken from it, and what closes it.

    The SDK hands over a socket that its HTTP response also owns, and that response closes it when it is collected as garbage, at any moment
    and in any thread: the order in which a circle's members are finalised decides. So the socket is doubled, and the response closed here.
    """
    raw = client.exec_start(exec_id, socket=True)
    theirs = cast(socket.socket, getattr(raw, "_sock", raw))
    # The SDK forgets the buffer above the socket, and with it the first bytes of a quick program.
    reader = raw._response.raw._fp.fp
    theirs.settimeout(0)
    already_read = bytes(reader.peek()) if reader is not None else b""
    if isinstance(theirs, ssl.SSLSocket):
        # Its keys are no part of the descriptor: it cannot be doubled. The response is kept for as long as the socket is used.
        def close() -> None:
            theirs.close()
            raw._response.close()
            client.close()

        return theirs, already_read, close
    ours = theirs.dup()
    raw._response.close()
    client.close()
    return ours, already_read, ours.close


def _exit_code(exec_id: str, name: str) -> int | None:
    try:
        with in_our_words(f"ask how {name} ended"):
            facts = api_client().exec_inspect(exec_id)
    except BackupError as error:
        raise ProgramFailed(
            f"nobody knows how {name} ended: {error.message}", hint="was Docker restarted meanwhile?", transient=True
        ) from error
    if facts["Running"]:
        return None
    if facts["ExitCode"] is None:
        raise ProgramFailed(f"nobody knows how {name} ended: Docker has no exit code for it", transient=True)
    return int(facts["ExitCode"])


def _end_marked(container_id: str, mark: str, user: str | None) -> None:
    """End a program and what it started, politely first; a container that runs no more has none."""
    try:
        found = container(container_id)
        if found is None or found.state not in ("running", "paused"):
            return
        if found.state == "paused":
            raise BackupError(f"{found.name} is paused")
        with in_our_words(f"end a program in container {found.name}"):
            client = api_client()
            argv = ["sh", "-c", _END_MARKED_PROGRAMS, "sh", mark]
            exec_id = client.exec_create(container_id, argv, user=user or "")["Id"]
            client.exec_start(exec_id, detach=True)
        deadline = time.monotonic() + END_GRACE_SECONDS
        while _exit_code(exec_id, "sh") is None and time.monotonic() < deadline:
            time.sleep(0.05)
    except BackupError as error:
        logger.warning("A program may still be running in container %s: %s", container_id[:12], error.message)


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "*****")
    return text
