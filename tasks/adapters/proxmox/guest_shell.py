"""Programs inside a restored guest: a machine's by its QEMU guest agent, a container's by `pct exec` on its node.

What comes back was said by a copy of somebody's data: it is text of a bounded length, read and never obeyed.
"""

from __future__ import annotations

import shlex
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.adapters.host.outside_files import SSH_KEY, SSH_KNOWN_HOSTS, UnfitFile, read_outside
from tasks.adapters.host.processes import run
from tasks.adapters.proxmox.session import Session
from tasks.core.errors import BackupError, ProgramFailed, Refused, UsageError
from tasks.core.plain_text import plain_line
from tasks.core.policy.proxmox_settings import NodeShell
from tasks.core.proxmox import replies
from tasks.core.proxmox.replies import Guest

# As the API bounds what a program is given, and ours alike.
INPUT_LIMIT = 65_536
OUTPUT_LIMIT = 8 << 20
_POLL_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_CONNECT_SECONDS = 15
_KEY_HINT = "make one with `ssh-keygen -t ed25519`, let the node take it, and chmod 0600"
# What ssh itself ends with; a program in the guest hardly ever does.
_OF_SSH = 255


@dataclass(frozen=True, slots=True)
class Said:
    """How a program ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """Give the end of what it complained of, in a line; what it printed besides may be somebody's data."""
        return plain_line(self.err.strip()[-300:]) or "(no message)"


class Shell(Protocol):
    """Runs programs inside one guest."""

    def try_run(self, words: Sequence[str], *, given: str = "", seconds: float) -> Said:
        """Run a program to its end; raise BackupError where it cannot be started, or does not end in time."""

    def answers(self) -> bool:
        """Tell whether programs can be run now."""


class AgentShell:
    """Programs inside a machine, by its guest agent."""

    def __init__(self, session: Session, guest: Guest) -> None:
        self._session, self._guest = session, guest
        self._path = f"nodes/{guest.node}/qemu/{guest.vmid}/agent"

    def answers(self) -> bool:
        """Tell whether the agent answers: until then Proxmox says that it does not run."""
        try:
            self._session.post(f"{self._path}/ping")
        except Refused:
            raise
        except BackupError:
            return False
        return True

    def try_run(self, words: Sequence[str], *, given: str = "", seconds: float) -> Said:
        """Run a program and ask until it has ended."""
        if len(given.encode()) > INPUT_LIMIT:
            raise BackupError(f"a program in {self._guest} would be given more than {INPUT_LIMIT:,} bytes")
        more: dict[str, Any] = {"input_data": given} if given else {}
        began = replies.mapping(
            self._session.post(f"{self._path}/exec", command=list(words), **more), "a program's start"
        )
        pid, deadline, polls = replies.number(began.get("pid"), "a program's number"), time.monotonic() + seconds, 0
        while True:
            now = replies.mapping(self._session.get(f"{self._path}/exec-status", pid=pid), "a program")
            if now.get("exited") in (1, "1", True):
                break
            if time.monotonic() > deadline:
                raise BackupError(
                    f"a program in {self._guest} does not end: {shlex.join(words)[:80]} has run for {seconds:g} s",
                    hint="raise `proxmox.verification.start_minutes` where the guest is slow",
                )
            time.sleep(_POLL_SECONDS[min(polls, len(_POLL_SECONDS) - 1)])
            polls += 1
        if now.get("out-truncated") in (1, "1", True):
            raise BackupError(
                f"a program in {self._guest} printed more than its agent brings: {shlex.join(words)[:80]}"
            )
        code = (
            128 + replies.number(now.get("signal"), "a signal")
            if now.get("signal")
            else replies.number(now.get("exitcode"), "an exit code")
        )
        return Said(code, _text(now.get("out-data")), _text(now.get("err-data")))


class NodeCommand:
    """Programs inside a container, by `pct exec` on its node over the system's ssh: batch mode, known nodes alone."""

    def __init__(self, wanted: NodeShell, address: str, guest: Guest) -> None:
        self._wanted, self._address, self._guest = wanted, address, guest

    def answers(self) -> bool:
        """Tell whether the container runs programs; raise BackupError where the node itself is not reached."""
        return self.try_run(["true"], seconds=60).code == 0

    def try_run(self, words: Sequence[str], *, given: str = "", seconds: float) -> Said:
        """Run a program to its end."""
        wanted = self._wanted
        options = {
            "BatchMode": "yes", "StrictHostKeyChecking": "yes", "UserKnownHostsFile": str(wanted.known_hosts_file), "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes", "IdentityFile": str(wanted.key_file), "ConnectTimeout": str(_CONNECT_SECONDS), "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4", "ClearAllForwardings": "yes", "ForwardAgent": "no", "LogLevel": "ERROR", "UpdateHostKeys": "no",
        }  # fmt: skip
        command = ["ssh", "-F", "/dev/null", "-T", "-p", str(wanted.port), "-l", wanted.user]
        command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        command += ["--", self._address, shlex.join(["pct", "exec", str(self._guest.vmid), "--", *words])]
        try:
            done = run(command, timeout_seconds=seconds + _CONNECT_SECONDS, stdin=given.encode())
        except ProgramFailed as error:
            if error.exit_code_seen is None:
                raise BackupError(
                    f"a program in {self._guest} did not end within {seconds:g} s: {shlex.join(words)[:80]}",
                    hint="raise `proxmox.verification.start_minutes` where the guest is slow",
                ) from None
            if error.exit_code_seen == _OF_SSH:
                raise BackupError(
                    f"node {self._guest.node} cannot be reached by ssh ({wanted.user}@{self._address}): {plain_line(error.stderr.strip()[-200:])}",
                    hint=f"is its key in {wanted.known_hosts_file} (compare it before), and does it take the key {wanted.key_file}?",
                ) from None
            return Said(error.exit_code_seen, "", error.stderr)
        return Said(0, done.stdout[:OUTPUT_LIMIT], done.stderr)


def require_node_shell(wanted: NodeShell | None, guest: Guest, host: str) -> str:
    """Give the address of a guest's node for ssh; raise Refused where the settings name no way into a container, UsageError for unfit files."""
    if wanted is None:
        raise Refused(
            f"{guest} is a container, which has no guest agent, and the settings name no `proxmox.verification.ssh`: nothing can be asked inside it",
            hint="name how `pct exec` is reached on its node: see the settings that `init` writes",
        )
    for path, kind in ((wanted.key_file, SSH_KEY), (wanted.known_hosts_file, SSH_KNOWN_HOSTS)):
        try:
            _, found = read_outside(path, kind)
        except FileNotFoundError:
            hint = (
                _KEY_HINT
                if kind is SSH_KEY
                else "write it with `ssh-keyscan NODE`, and compare the key with the node's own"
            )
            raise UsageError(f"there is no {kind.what} {path}", hint=hint) from None
        except UnfitFile as error:
            raise UsageError(error.message, hint=error.hint) from None
        if kind is SSH_KEY and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(
                f"other users may read the {kind.what} {path} (mode {stat.S_IMODE(found.st_mode):04o})",
                hint=f"chmod 0600 {path}",
            )
    if not wanted.addresses:
        return host
    if guest.node not in wanted.addresses:
        raise Refused(
            f"{guest} is on node {guest.node}, which `proxmox.verification.ssh.addresses` does not name",
            hint="add the node with its address",
        )
    return wanted.addresses[guest.node]


def _text(value: object) -> str:
    """Give a program's output. Proxmox hands bytes on as if each were a character of its own: UTF-8 is put together again."""
    said = (value if isinstance(value, str) else "")[:OUTPUT_LIMIT]
    try:
        return said.encode("latin-1").decode()
    except UnicodeError:
        return said
