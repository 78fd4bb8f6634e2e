"""The engine as the tests use it: whose a test project is, and how it is taken away again.

A test project's name says which process made it (`mabtest-<pid>x<start time>-<random>`), so that whatever a killed run left
behind is recognised, and what a run beside this one is using is left alone.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import docker
import docker.errors

PREFIX = "mabtest-"
PROJECT_LABEL = "com.docker.compose.project"
_OWNED = re.compile(r"mabtest-(\d+)x(\d+)-")


@cache
def engine() -> Any:
    """Give the Docker SDK's client for the default engine, one for the whole process."""
    return docker.from_env(timeout=120)


def engine_problem() -> str | None:
    """Tell why no engine can be used, in a sentence; None when one answers."""
    try:
        docker.from_env(timeout=10).ping()
    except docker.errors.DockerException as error:
        return (
            f"no Docker engine answers ({str(error).splitlines()[0]}); `tests/stack/machine.sh` installs and starts one"
        )
    found = subprocess.run(
        ["docker", "compose", "version", "--short"], capture_output=True, text=True, timeout=30, check=False
    )
    if found.returncode != 0:
        return "`docker compose` version 2 is missing; `tests/stack/machine.sh` installs it"
    return None


def new_project() -> str:
    """Name a project that belongs to this process."""
    return f"{PREFIX}{os.getpid()}x{_started(os.getpid())}-{secrets.token_hex(3)}"


def reap() -> list[str]:
    """Remove what test runs that no longer live left on the engine; return the names of their projects."""
    # One at a time: a network cannot be removed while somebody else is still removing its containers.
    with open(Path(tempfile.gettempdir()) / f"mailarchiver-backup-reap-{os.getuid()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dead = sorted(project for project in _projects() if _is_orphan(project))
        for project in dead:
            remove_project(project)
        return dead


def remove_project(project: str) -> None:
    """Remove every container, network and volume of a compose project; none is success."""
    wanted = {"label": f"{PROJECT_LABEL}={project}"}
    for container in engine().containers.list(all=True, filters=wanted, ignore_removed=True):
        try:
            # A paused container cannot be killed by old engines.
            if container.status == "paused":
                container.unpause()
            container.remove(force=True, v=True)
        except docker.errors.APIError as error:
            # Somebody else is taking the same orphan away: another test run, or its own `--rm`.
            if error.status_code not in (404, 409):
                raise
    for network in engine().networks.list(filters=wanted):
        with suppress(docker.errors.NotFound):
            network.remove()
    for volume in engine().volumes.list(filters=wanted):
        with suppress(docker.errors.NotFound):
            volume.remove(force=True)


def container_names() -> list[str]:
    """Name all containers; other tests' come and go meanwhile."""
    return [one.name for one in engine().containers.list(all=True, ignore_removed=True)]


def last_words(project: str) -> str:
    """Give the end of what each container of a project printed: why a stack did not come up."""
    found = engine().containers.list(all=True, filters={"label": f"{PROJECT_LABEL}={project}"}, ignore_removed=True)
    return "\n".join(f"--- {one.name} ({one.status})\n{one.logs(tail=12).decode(errors='replace')}" for one in found)


def remove_directory(directory: Path, *, image: str) -> None:
    """Remove a directory with what containers wrote into it, which may belong to root or to another user."""
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        place = {str(directory.parent): {"bind": "/there", "mode": "rw"}}
        engine().containers.run(
            image,
            ["rm", "-rf", f"/there/{directory.name}"],
            entrypoint="",
            volumes=place,
            remove=True,
            network_mode="none",
        )


def host_address() -> str:
    """Give an address of the host that containers on every ordinary network can reach."""
    for network in engine().networks.list():
        if network.attrs["Driver"] == "bridge" and network.name == "bridge":
            config = network.attrs["IPAM"]["Config"][0]
            # Old engines do not tell the gateway that they chose: it is the first address.
            return str(config.get("Gateway") or next(ipaddress.ip_network(config["Subnet"]).hosts()))
    raise RuntimeError("the engine has no default bridge network")


def _projects() -> set[str]:
    client, found = engine(), set()
    for container in client.containers.list(all=True, filters={"label": PROJECT_LABEL}, ignore_removed=True):
        found.add(container.labels[PROJECT_LABEL])
    for network in client.networks.list(filters={"label": PROJECT_LABEL}):
        found.add(network.attrs["Labels"][PROJECT_LABEL])
    for volume in client.volumes.list(filters={"label": PROJECT_LABEL}):
        found.add(volume.attrs["Labels"][PROJECT_LABEL])
    return found


def _is_orphan(project: str) -> bool:
    owner = _OWNED.match(project)
    return owner is not None and _started(int(owner[1])) != int(owner[2])


def _started(pid: int) -> int:
    # The kernel's own clock tick of the start tells a process from a later one that got its number.
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return -1
