"""LXC through its own programs, whose answers are read strictly."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tasks.adapters.host.processes import run
from tasks.core.errors import BackupError, ProgramFailed, Refused
from tasks.core.guests.container import read_state
from tasks.core.guests.former_state import Seen

PROGRAMS = ("lxc-info", "lxc-start", "lxc-stop")
ANSWER_SECONDS = 20.0
START_SECONDS = 60.0
_ENGLISH = {"LC_ALL": "C"}


def require_lxc() -> None:
    """Raise Refused where LXC's programs are missing, or where we may not read and start its containers."""
    if missing := [each for each in PROGRAMS if shutil.which(each) is None]:
        raise Refused(f"LXC's program {missing[0]} is not on this host", hint="install it: apt-get install lxc")
    if os.geteuid() != 0:
        raise Refused(
            f"containers are backed up and restored by root, not by user {os.geteuid()}", hint="run it as root"
        )


def container_now(place: Path, name: str) -> tuple[Seen, str]:
    """Give a container's state and LXC's own word for it; raise Refused where there is none of that name."""
    if not (place / name / "config").is_file():
        raise Refused(
            f"there is no container {name} in {place}",
            hint="`lxc-ls -1` names those that are there, `lxc-config lxc.lxcpath` their place",
        )
    return read_state(_info(place, name, "-s", "-p"), name)


def config_values(place: Path, name: str, key: str) -> list[str]:
    """Give the values that a container's configuration has for a key, includes and defaults among them."""
    return [line for line in _info(place, name, "-c", key, "-H").splitlines() if line.strip()]


def ask_to_stop(place: Path, name: str) -> None:
    """Ask a container to shut down, and do not wait for it; one that does not run is no error."""
    _act(place, name, "lxc-stop", "-W")


def cut_power(place: Path, name: str) -> None:
    """End everything in a container at once."""
    _act(place, name, "lxc-stop", "-k")


def start(place: Path, name: str) -> None:
    """Start a container; return once LXC says that it runs. One that runs already is no error."""
    run(["lxc-start", "-P", str(place), "-n", name], timeout_seconds=START_SECONDS, environment=_ENGLISH)


def _act(place: Path, name: str, program: str, how: str) -> None:
    try:
        run([program, "-P", str(place), "-n", name, how], timeout_seconds=ANSWER_SECONDS, environment=_ENGLISH)
    except ProgramFailed as error:
        if container_now(place, name)[0].state != "stopped":
            raise BackupError(f"{program} {how} of {name} failed: {error.stderr.strip() or error.message}") from error


def _info(place: Path, name: str, *what: str) -> str:
    command = ["lxc-info", "-P", str(place), "-n", name, *what]
    return run(command, timeout_seconds=ANSWER_SECONDS, environment=_ENGLISH).stdout
