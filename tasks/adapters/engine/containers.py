"""Containers of the engine, in our words.

"Already so" is success: starting what runs, stopping what is stopped, removing what is absent.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import docker
import docker.errors
import requests.exceptions

from tasks.adapters.engine.client import api_client, engine_is_local, explanation, in_our_words
from tasks.adapters.engine.resources import environment_of, label_filter, volume_mountpoint
from tasks.core.errors import BackupError, ProgramFailed, Refused
from tasks.core.stack.installation import Mount, ServiceState

logger = logging.getLogger(__name__)

# Where a container in the host's own network answers.
HOST_ADDRESS = "127.0.0.1"
REMOVAL_TRIES, REMOVAL_PAUSE_SECONDS = 5, 0.3


@dataclass(frozen=True, slots=True)
class Container:
    """A container as Docker sees it. `environment` includes what its image sets; `pid` is 0 unless it runs."""

    id: str
    name: str
    state: ServiceState
    pid: int
    exit_code: int | None
    started_at: str
    restart_policy: str
    labels: Mapping[str, str]
    environment: Mapping[str, str] = field(repr=False)
    mounts: tuple[Mount, ...]
    addresses: tuple[str, ...]
    networks: tuple[str, ...]
    image: str
    image_id: str
    health: str | None
    oom_killed: bool
    user: str
    stop_timeout_seconds: int | None
    aliases: tuple[str, ...] = ()
    hostname: str = ""
    published_ports: tuple[PublishedPort, ...] = ()
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of a container that can be reached at an address of the host (`0.0.0.0` and `::` mean every address)."""

    container_port: int
    host_address: str
    host_port: int


def containers(*, label: Mapping[str, str] | None = None, running_only: bool = False) -> list[Container]:
    """List containers in any state (paused ones count as running), by all of the given labels, sorted by name.

    An empty value of a label asks only that the container has it.
    """
    with in_our_words("list containers"):
        found = api_client().containers(all=not running_only, filters={"label": label_filter(label)})
    inspected = (container(entry["Id"]) for entry in found)
    return sorted((each for each in inspected if each is not None), key=lambda each: each.name)


def container(container_id: str) -> Container | None:
    """Return the container of this id or name, or None where there is none."""
    with in_our_words(f"look at container {container_id[:12]}"):
        try:
            return _container(api_client().inspect_container(container_id))
        except docker.errors.NotFound:
            return None


def containers_mounting(place: Mount) -> list[Container]:
    """List the containers, in any state, that mount the same directory or volume, or something within, by whatever name."""
    return [each for each in containers() if any(_shows(mount, place) for mount in each.mounts)]


def containers_around(place: Mount) -> list[Container]:
    """List the containers, in any state, that may write to a directory around a place (all of /srv), and so to the place itself."""
    return [each for each in containers() if any(not mount.read_only and _shows(place, mount) for mount in each.mounts)]


def programs_in(container_id: str) -> list[str]:
    """List the command lines of what runs in a container; none where it does not run, or Docker does not tell."""
    with suppress(BackupError), in_our_words(f"list the programs of container {container_id[:12]}"):
        found = api_client().top(container_id, ps_args="-eo pid,args")
        return [row[-1] for row in found.get("Processes") or () if row]
    return []


def start_container(container_id: str) -> None:
    """Start a container; one that runs already is left alone."""
    with in_our_words(f"start container {container_name(container_id)}"):
        api_client().start(container_id)


def stop_container(container_id: str, *, timeout_seconds: int) -> None:
    """Stop a container with its own stop signal, and kill it after the timeout; one that is stopped is left alone.

    A paused container can hear no signal: it is unpaused first, lest the kill be the only thing it gets.
    """
    unpause_container(container_id)
    with in_our_words(f"stop container {container_name(container_id)}"), suppress(docker.errors.NotFound):
        api_client().stop(container_id, timeout=timeout_seconds)


def pause_container(container_id: str) -> None:
    """Freeze a running container; one that is paused already is left alone."""
    _change(container_id, "pause", already="paused")


def unpause_container(container_id: str) -> None:
    """Let a frozen container go on; one that is not paused is left alone."""
    found = container(container_id)
    if found is not None and found.state == "paused":
        _change(container_id, "unpause", already="running")


def kill_container(container_id: str) -> None:
    """Kill a container; one that does not run is left alone."""
    with in_our_words(f"kill container {container_name(container_id)}"):
        try:
            api_client().kill(container_id)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if "is not running" not in explanation(error):
                raise


def remove_container(container_id: str, *, force: bool = False) -> None:
    """Remove a container and its anonymous volumes; one that is absent is no error. `force` kills a running one.

    Docker may still be writing its log or health while it removes it, and says that its directory is not empty: then again.
    """
    with in_our_words(f"remove container {container_id[:12]}"):
        for left in reversed(range(REMOVAL_TRIES)):
            try:
                api_client().remove_container(container_id, force=force, v=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if "already in progress" in explanation(error):
                    return
                if not left or "directory not empty" not in explanation(error):
                    raise
                time.sleep(REMOVAL_PAUSE_SECONDS)
            else:
                return


def create_helper(
    image_id: str,
    command: Sequence[str],
    *,
    mounts: Sequence[Mount] = (),
    network: str | None = "none",
    environment: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    user: str | None = None,
    entrypoint: Sequence[str] | None = None,
    name: str | None = None,
) -> str:
    """Create (not start) a container for a job of ours from an image that is here already; return its id.

    It has no restart policy, and by default no network (None: Docker's default network). Nothing removes it but us.
    """
    with in_our_words(f"create a helper container from {image_id[:19]}"):
        client = api_client()
        made = client.create_container(
            image_id,
            list(command),
            name=name,
            user=user,
            environment=dict(environment or {}),
            labels=dict(labels or {}),
            entrypoint=list(entrypoint) if entrypoint is not None else None,
            host_config=client.create_host_config(
                mounts=[_mount_request(mount) for mount in mounts],
                network_mode=network,
                restart_policy={"Name": "no"},
            ),
        )
    return str(made["Id"])


def wait_container(container_id: str, timeout_seconds: float) -> int:
    """Wait until the container has stopped and return its exit code; raise ProgramFailed (transient) after the timeout."""
    try:
        with in_our_words(f"wait for container {container_name(container_id)}"):
            return int(api_client().wait(container_id, timeout=timeout_seconds)["StatusCode"])
    except BackupError as error:
        if isinstance(error.__cause__, requests.exceptions.RequestException) and not isinstance(error, Refused):
            raise ProgramFailed(
                f"container {container_name(container_id)} did not end within {timeout_seconds:g} s", transient=True
            ) from error
        raise


def logs(container_id: str, tail: int = 100) -> str:
    """Return the last lines that a container wrote to stdout and stderr."""
    with in_our_words(f"read the log of container {container_name(container_id)}"):
        return cast(bytes, api_client().logs(container_id, tail=tail)).decode(errors="replace")


def _container(facts: dict[str, Any]) -> Container:
    state, config, host = facts["State"], facts["Config"], facts["HostConfig"]
    networks: dict[str, Any] = facts["NetworkSettings"].get("Networks") or {}
    status = cast(ServiceState, state["Status"])
    networks = dict(_networks(facts, networks))
    return Container(
        id=facts["Id"],
        name=facts["Name"].removeprefix("/"),
        state=status,
        pid=state.get("Pid") or 0,
        exit_code=state.get("ExitCode") if status in ("exited", "dead") else None,
        started_at=state.get("StartedAt") or "",
        restart_policy=(host.get("RestartPolicy") or {}).get("Name") or "no",
        labels=dict(config.get("Labels") or {}),
        environment=environment_of(config),
        mounts=tuple(_mount(mount) for mount in facts.get("Mounts") or ()),
        addresses=(HOST_ADDRESS,)
        if host.get("NetworkMode") == "host" and status in ("running", "paused")
        else tuple(
            address
            for network in networks.values()
            for address in (network.get("IPAddress"), network.get("GlobalIPv6Address"))
            if address
        ),
        networks=tuple(sorted(networks)),
        image=config["Image"],
        image_id=facts["Image"],
        health=(state.get("Health") or {}).get("Status"),
        oom_killed=bool(state.get("OOMKilled")),
        user=config.get("User") or "",
        stop_timeout_seconds=config.get("StopTimeout"),
        aliases=tuple(sorted({alias for network in networks.values() for alias in network.get("Aliases") or ()})),
        hostname=config.get("Hostname") or "",
        published_ports=tuple(_published_ports(facts)),
        created_at=facts.get("Created") or "",
    )


def _networks(facts: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a container's networks: those of the container whose network it shares, where it has `network_mode: service:...`."""
    mode = str((facts.get("HostConfig") or {}).get("NetworkMode") or "")
    if not mode.startswith("container:") or facts["State"]["Status"] not in ("running", "paused"):
        return own
    try:
        owner = api_client().inspect_container(mode.partition(":")[2])
    except docker.errors.NotFound:
        return own
    return dict((owner.get("NetworkSettings") or {}).get("Networks") or {})


def _published_ports(facts: dict[str, Any]) -> Iterator[PublishedPort]:
    # Asked of the configuration, not of the network: a stopped container publishes again as soon as it starts.
    bindings: dict[str, Any] = facts["HostConfig"].get("PortBindings") or {}
    for port, places in bindings.items():
        for place in places or ():
            yield PublishedPort(
                container_port=int(port.partition("/")[0]),
                host_address=place.get("HostIp") or "0.0.0.0",
                host_port=int(place.get("HostPort") or 0),
            )


def _mount(facts: dict[str, Any]) -> Mount:
    kind = facts["Type"]
    source = facts.get("Name") or "" if kind == "volume" else facts.get("Source") or ""
    if kind == "volume":
        host_path = volume_mountpoint(source) if source else None
    else:
        host_path = Path(facts["Source"]) if engine_is_local() and facts.get("Source") else None
    return Mount(
        kind=kind,
        source=source,
        target=facts["Destination"],
        host_path=host_path,
        read_only=not facts.get("RW", True),
    )


def _mount_request(mount: Mount) -> docker.types.Mount:
    return docker.types.Mount(
        target=mount.target, source=mount.source or None, type=mount.kind, read_only=mount.read_only
    )


def _shows(mount: Mount, place: Mount) -> bool:
    """Tell whether a mount shows a place or something within; links and volumes that stand for directories lead there too."""
    if mount.kind == place.kind == "volume" and mount.source == place.source:
        return True
    if mount.host_path is None or place.host_path is None:
        return mount.kind == place.kind == "bind" and Path(mount.source).is_relative_to(place.source)
    return Path(os.path.realpath(mount.host_path)).is_relative_to(os.path.realpath(place.host_path))


def _change(container_id: str, verb: Literal["pause", "unpause"], *, already: ServiceState) -> None:
    with in_our_words(f"{verb} container {container_name(container_id)}"):
        try:
            getattr(api_client(), verb)(container_id)
        except docker.errors.APIError:
            found = container(container_id)
            if found is None or found.state != already:
                raise


def container_name(container_id: str) -> str:
    """Name a container for a message, without letting the question itself fail."""
    with suppress(BackupError):
        found = container(container_id)
        if found is not None:
            return found.name
    return container_id[:12]


def describe_container(container_id: str) -> str:
    try:
        found = container(container_id)
    except BackupError as error:
        return error.message
    return f"container {found.name} is {found.state}" if found else "its container is gone"
