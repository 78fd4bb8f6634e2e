"""A warm start for the command line: a process that has imported the program and forks a child for each command.

Importing Prefect takes two seconds of a core, and the suite calls the program some hundreds of times. A child is the
program as it would be after its imports: with a process, arguments, environment, directory and descriptors of its own.
What a user has from the first byte on, the cold start included, the wheel's tests try.
"""

from __future__ import annotations

import array
import atexit
import gc
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
# What Python and Prefect read from the environment at their start: a command with other values of these needs a start of its own.
READ_AT_START = ("PREFECT_", "PYTHON", "LC_", "LANG")
MODULES = (
    "deployments.cli.program", "deployments.doctor", "flows.automated_backup", "flows.guided_restore", "flows.prune", "flows.proxmox_backup", "flows.proxmox_restore_verification", "flows.rollback", "flows.watch",
    "tasks.oversight.stack_health",
)  # fmt: skip

_lock = threading.Lock()
# One in each network that a command is started in: a test may have put its thread into a network of its own.
_servers: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the part of an environment that counts at the start alone."""
    return {key: value for key, value in environment.items() if key.startswith(READ_AT_START)}


# What the program itself sets when it is imported, in this process too, sooner or later, makes no difference.
import deployments  # noqa: E402, F401
from tasks.core.errors import BackupError  # noqa: E402

_at_start = read_at_start(os.environ)


def _finding_compose(environment: Mapping[str, str]) -> list[str | None]:
    return [environment.get(name) for name in ("PATH", "HOME", "DOCKER_CONFIG", "DOCKER_HOST", "DOCKER_CONTEXT")]


# How Compose is called is found out once too, and anew where it may lie elsewhere.
_compose_was_found = _finding_compose(os.environ)


def can_be_warm(environment: Mapping[str, str]) -> bool:
    """Tell whether a command with this environment may come from the warm process."""
    return read_at_start(environment) == _at_start


def start(words: Sequence[str], environment: Mapping[str, str], directory: str, descriptors: Sequence[int]) -> Child:
    """Start a command with these three descriptors as its stdin, stdout and stderr, in this thread's network."""
    assert can_be_warm(environment), "Prefect and Python would read another environment at their start"
    with _lock:
        line = _started()
        ours, theirs = socket.socketpair()
        with theirs:
            request = json.dumps(
                {"words": list(words), "environment": dict(environment), "directory": directory}
            ).encode()
            fds = array.array("i", [*descriptors, theirs.fileno()])
            line.sendmsg([len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            line.sendall(request)
    pid = int.from_bytes(_exactly(ours, 4), "big")
    return Child(pid, ours)


class Child:
    """A command that runs; the process that waits for it tells of its end."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid, self._line = pid, line
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Give the exit code, negative for a signal; None while it runs."""
        return (
            self.returncode
            if self.returncode is not None or not select.select([self._line], [], [], 0)[0]
            else self.wait(5)
        )

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended already."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout_seconds: float) -> int:
        """Wait for the end and return the exit code; raise TimeoutError."""
        if self.returncode is None:
            self._line.settimeout(timeout_seconds)
            self.returncode = int.from_bytes(_exactly(self._line, 4), "big", signed=True)
            self._line.close()
        return self.returncode


def _exactly(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = line.recv(count - len(data))
        if not piece:
            raise RuntimeError("the warm process has died")
        data += piece
    return data


def _started() -> socket.socket:
    network = os.readlink("/proc/thread-self/ns/net")
    if network not in _servers or _servers[network][0].poll() is not None:
        line, theirs = socket.socketpair()
        with theirs:
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        atexit.register(line.close)
        _servers[network] = server, line
    return _servers[network][1]


def end() -> None:
    """End the warm process of this thread's network, where there is one; what it has started goes on."""
    _, line = _servers.pop(os.readlink("/proc/thread-self/ns/net"), (None, None))
    if line is not None:
        line.close()


def serve(line: socket.socket) -> None:
    """Fork a child for each request until the other side closes."""
    import importlib

    from tasks.prefect_objects import do_without_prefect

    do_without_prefect()
    for module in MODULES:
        importlib.import_module(module)
    from tasks.adapters.engine.compose import compose_command

    with suppress(BackupError):  # anyone who needs it is told why
        compose_command()
    gc.freeze()  # the children need not look through the modules, nor have pages of their own for it
    while True:
        head, ancillary, _, _ = line.recvmsg(4, socket.CMSG_SPACE(4 * 4))
        if not head:
            return
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        head += _exactly(line, 4 - len(head)) if len(head) < 4 else b""
        request = json.loads(_exactly(line, int.from_bytes(head, "big")))
        # A middle process waits for the command and tells how it ended, so that this one can take the next request.
        if os.fork() == 0:
            line.close()
            _watch(request, list(fds))
        for descriptor in fds:
            os.close(descriptor)
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _watch(request: dict[str, Any], fds: list[int]) -> None:
    pid = os.fork()
    if pid == 0:
        os.close(fds[3])
        _become(request, fds[:3])
    for descriptor in fds[:3]:
        os.close(descriptor)
    os.write(fds[3], pid.to_bytes(4, "big"))
    _, status = os.waitpid(pid, 0)
    os.write(fds[3], os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
    os._exit(0)


def _become(request: dict[str, Any], fds: list[int]) -> NoReturn:
    for number, descriptor in enumerate(fds):
        os.dup2(descriptor, number)
    for descriptor in fds:
        if descriptor > 2:
            os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = request["words"]
    from deployments.cli.program import main
    from tasks.adapters.engine.compose import forget_compose_command

    if _finding_compose(os.environ) != _compose_was_found:
        forget_compose_command()
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = 1 if isinstance(end.code, str) else end.code or 0
    except BaseException:  # noqa: BLE001 - shown as Python shows it, with its exit code
        sys.excepthook(*sys.exc_info())
        code = 1
    # As at any end of a program, but for the modules' own end: that takes longer than most commands.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
