"""The Docker engine in our words: the only module that knows the Docker SDK, and where its exceptions end.

"Already so" is success: starting what runs, stopping what is stopped, removing what is absent. An engine that cannot be
reached is `Refused` with one clear sentence.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import docker
import docker.context
import docker.errors
import docker.utils
import requests.exceptions

from tasks.adapters.engine import relay as relay_program
from tasks.adapters.engine.exec_stream import END_GRACE_SECONDS, Connection, Program
from tasks.adapters.host.processes import Output, start_companion
from tasks.core.errors import BackupError, ProgramFailed, Refused
from tasks.core.stack.installation import Mount, ServiceState

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_SECONDS = 60
RELAY_READY_SECONDS = 30.0
ARCHIVE_CHUNK_BYTES = 1 << 20
PROGRAM_MARK = "MAILARCHIVER_BACKUP_PROGRAM"
DEFAULT_ENGINE = "unix:///var/run/docker.sock"
# Where a container in the host's own network answers.
HOST_ADDRESS = "127.0.0.1"

# Run as the program's own user: reading another user's environment needs a capability that containers lack.
# PostgreSQL is process 1 of its container, and takes any orphan that dies by a signal for a crashed server process: it then restarts
# all of them. So no orphan may be made: children go before the program itself (whose parent, outside, shows as 0), and what is
# an orphan already (parent 1) is left alone.
_END_MARKED_PROGRAMS = """
for signal in TERM KILL; do
  found=
  for generation in children programs; do
    for directory in /proc/[0-9]*; do
      if tr '\\0' '\\n' <"$directory/environ" 2>/dev/null | grep -qx "$1"; then
        parent=$(sed -n 's/^PPid:[^0-9]*//p' "$directory/status" 2>/dev/null)
        case $generation:$parent in *:|*:1|children:0|programs:[1-9]*) continue ;; esac
        kill -$signal "${directory#/proc/}" 2>/dev/null && found=yes
      fi
    done
    [ $generation$found != childrenyes ] || sleep 0.2
  done
  [ -n "$found" ] || exit 0
  [ $signal = KILL ] || sleep 1
done
"""


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


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image as it lies on this host. `digests` are `name@sha256:...`, known only for images from a registry."""

    image_id: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    architecture: str
    operating_system: str
    environment: Mapping[str, str]
    user: str

    @property
    def digest(self) -> str | None:
        """Give the registry's digest where one is known."""
        return self.digests[0].rpartition("@")[2] if self.digests else None


# --- Reaching the engine ---------------------------------------------------------------------------------------------


def engine_address() -> str:
    """Say where the engine is: DOCKER_HOST, else the current context of the docker CLI, else the usual socket."""
    chosen = os.environ.get("DOCKER_HOST")
    if chosen:
        return chosen
    try:
        context = docker.context.ContextAPI.get_current_context()
        host = context.Host if context else None
    except (docker.errors.DockerException, OSError, ValueError, KeyError):
        # A damaged CLI configuration must not keep a backup from running: the usual socket most likely is the one.
        host = None
    return str(host) if host else DEFAULT_ENGINE


def engine_is_local() -> bool:
    """Tell whether the engine's paths can be paths of this host (it listens on a Unix socket)."""
    return engine_address().startswith(("unix://", "/"))


def engine_version() -> str:
    """Return the engine's version; raise Refused where it does not answer."""
    with _our_words("ask Docker for its version"):
        return str(_client().version()["Version"])


_clients: dict[tuple[str, int], docker.APIClient] = {}


def _client() -> docker.APIClient:
    key = (engine_address(), os.getpid())
    if key not in _clients:
        try:
            _clients[key] = _new_client(None)
        except ValueError as error:
            # An address that is none, from DOCKER_HOST or a context.
            raise docker.errors.DockerException(str(error)) from error
    return _clients[key]


def _new_client(version: str | None) -> docker.APIClient:
    settings = docker.utils.kwargs_from_env()
    settings["base_url"] = settings.get("base_url") or engine_address()
    return docker.APIClient(version=version, timeout=ANSWER_TIMEOUT_SECONDS, **settings)


@contextmanager
def _our_words(act: str) -> Iterator[None]:
    """Let no exception of the SDK, or of what it stands on, pass."""
    try:
        yield
    except docker.errors.APIError as error:
        transient = error.status_code is not None and error.status_code >= 500
        raise BackupError(f"cannot {act}: Docker says: {_explanation(error)}", transient=transient) from error
    except requests.exceptions.Timeout as error:
        raise BackupError(
            f"cannot {act}: Docker did not answer in time",
            hint="is the machine overloaded, or a disk stuck? see the journal of docker.service",
            transient=True,
        ) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        _raise_unreachable(act, error)


def _raise_unreachable(act: str, error: Exception) -> NoReturn:
    address = engine_address()
    number = _error_number(error)
    if number in (errno.EACCES, errno.EPERM):
        raise Refused(
            f"this user may not use Docker's socket ({address}): permission denied",
            hint="run with sudo, or as a user of the group docker",
        ) from error
    # One that answered this process before is most likely being restarted; one that never did is not there.
    was_there = (address, os.getpid()) in _clients
    if number in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK):
        raise Refused(
            f"Docker is not running: nothing answers at {address}",
            hint="start it (systemctl start docker), or set DOCKER_HOST to where it listens",
            transient=was_there,
        ) from error
    if was_there:
        raise BackupError(f"cannot {act}: Docker at {address} broke off: {error}", transient=True) from error
    raise Refused(
        f"Docker cannot be reached at {address}: {_innermost(error)}",
        hint="is DOCKER_HOST (or the docker context) right? it wants unix:///PATH or tcp://HOST:PORT",
    ) from error


def _innermost(error: BaseException) -> str:
    """Give the reason below everything that the SDK and its HTTP library wrapped around it, in a line."""
    found = next((each for each in _wrapped(error) if isinstance(each, OSError) and each.strerror), error)
    return (getattr(found, "strerror", "") or str(found)).splitlines()[0]


def _error_number(error: BaseException) -> int | None:
    """Find the operating system's error under what the SDK and its HTTP library wrapped around it."""
    return next((each.errno for each in _wrapped(error) if isinstance(each, OSError) and each.errno is not None), None)


def _wrapped(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it came from."""
    todo: list[object] = [error]
    seen: set[int] = set()
    while todo:
        thing = todo.pop()
        if isinstance(thing, BaseException) and id(thing) not in seen:
            seen.add(id(thing))
            yield thing
            todo += [thing.__cause__, thing.__context__, *thing.args, getattr(thing, "reason", None)]


def _explanation(error: docker.errors.APIError) -> str:
    return str(error.explanation or error).strip()


# --- Containers ------------------------------------------------------------------------------------------------------


def containers(*, label: Mapping[str, str] | None = None, running_only: bool = False) -> list[Container]:
    """List containers in any state (paused ones count as running), by all of the given labels, sorted by name.

    An empty value of a label asks only that the container has it.
    """
    with _our_words("list containers"):
        found = _client().containers(all=not running_only, filters={"label": _label_filter(label)})
    inspected = (container(entry["Id"]) for entry in found)
    return sorted((each for each in inspected if each is not None), key=lambda each: each.name)


def container(container_id: str) -> Container | None:
    """Return the container of this id or name, or None where there is none."""
    with _our_words(f"look at container {container_id[:12]}"):
        try:
            return _container(_client().inspect_container(container_id))
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
    with suppress(BackupError), _our_words(f"list the programs of container {container_id[:12]}"):
        found = _client().top(container_id, ps_args="-eo pid,args")
        return [row[-1] for row in found.get("Processes") or () if row]
    return []


def start_container(container_id: str) -> None:
    """Start a container; one that runs already is left alone."""
    with _our_words(f"start container {_name(container_id)}"):
        _client().start(container_id)


def stop_container(container_id: str, *, timeout_seconds: int) -> None:
    """Stop a container with its own stop signal, and kill it after the timeout; one that is stopped is left alone.

    A paused container can hear no signal: it is unpaused first, lest the kill be the only thing it gets.
    """
    unpause_container(container_id)
    with _our_words(f"stop container {_name(container_id)}"), suppress(docker.errors.NotFound):
        _client().stop(container_id, timeout=timeout_seconds)


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
    with _our_words(f"kill container {_name(container_id)}"):
        try:
            _client().kill(container_id)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if "is not running" not in _explanation(error):
                raise


def remove_container(container_id: str, *, force: bool = False) -> None:
    """Remove a container and its anonymous volumes; one that is absent is no error. `force` kills a running one."""
    with _our_words(f"remove container {container_id[:12]}"):
        try:
            _client().remove_container(container_id, force=force, v=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if "already in progress" not in _explanation(error):
                raise


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
    with _our_words(f"create a helper container from {image_id[:19]}"):
        client = _client()
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
        with _our_words(f"wait for container {_name(container_id)}"):
            return int(_client().wait(container_id, timeout=timeout_seconds)["StatusCode"])
    except BackupError as error:
        if isinstance(error.__cause__, requests.exceptions.RequestException) and not isinstance(error, Refused):
            raise ProgramFailed(
                f"container {_name(container_id)} did not end within {timeout_seconds:g} s", transient=True
            ) from error
        raise


def logs(container_id: str, tail: int = 100) -> str:
    """Return the last lines that a container wrote to stdout and stderr."""
    with _our_words(f"read the log of container {_name(container_id)}"):
        return cast(bytes, _client().logs(container_id, tail=tail)).decode(errors="replace")


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
        environment=_environment(config),
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
        owner = _client().inspect_container(mode.partition(":")[2])
    except docker.errors.NotFound:
        return own
    return dict((owner.get("NetworkSettings") or {}).get("Networks") or {})


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in config.get("Env") or ())


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
    with _our_words(f"{verb} container {_name(container_id)}"):
        try:
            getattr(_client(), verb)(container_id)
        except docker.errors.APIError:
            found = container(container_id)
            if found is None or found.state != already:
                raise


def _name(container_id: str) -> str:
    """Name a container for a message, without letting the question itself fail."""
    with suppress(BackupError):
        found = container(container_id)
        if found is not None:
            return found.name
    return container_id[:12]


def _label_filter(label: Mapping[str, str] | None) -> list[str]:
    return [f"{key}={value}" if value else key for key, value in (label or {}).items()]


# --- Images, networks, volumes ---------------------------------------------------------------------------------------


def image_facts(image_id: str) -> ImageFacts:
    """Return what is known of an image on this host, by id or name; raise BackupError where there is none."""
    with _our_words(f"look at image {image_id}"):
        facts = _client().inspect_image(image_id)
    config = facts.get("Config") or {}
    return ImageFacts(
        image_id=facts["Id"],
        names=tuple(facts.get("RepoTags") or ()),
        digests=tuple(facts.get("RepoDigests") or ()),
        architecture=facts.get("Architecture") or "",
        operating_system=facts.get("Os") or "",
        environment=_environment(config),
        user=config.get("User") or "",
    )


def image_exists(name_or_id: str) -> bool:
    """Tell whether an image is on this host, so that no registry is needed for it."""
    with _our_words(f"look for image {name_or_id}"):
        try:
            _client().inspect_image(name_or_id)
        except docker.errors.NotFound:
            return False
        return True


def networks(label: Mapping[str, str] | None = None) -> list[str]:
    """List the names of the networks that carry all of these labels."""
    with _our_words("list networks"):
        return sorted(each["Name"] for each in _client().networks(filters={"label": _label_filter(label)}))


def network_is_internal(name: str) -> bool:
    """Tell whether a network has no way out; raise BackupError where there is no such network."""
    with _our_words(f"look at network {name}"):
        return bool(_client().inspect_network(name)["Internal"])


def remove_network(name: str) -> None:
    """Remove a network; one that is absent is no error."""
    with _our_words(f"remove network {name}"), suppress(docker.errors.NotFound):
        _client().remove_network(name)


def volumes(label: Mapping[str, str] | None = None) -> list[str]:
    """List the names of the volumes that carry all of these labels."""
    with _our_words("list volumes"):
        found = _client().volumes(filters={"label": _label_filter(label)})["Volumes"] or []
        return sorted(each["Name"] for each in found)


def volume_mountpoint(name: str) -> Path | None:
    """Return where the host sees a volume; None where there is no such volume or only Docker can reach it.

    A volume that stands for a directory (`type: none, o: bind, device: /srv/mail`) is seen there, and one for anything else (NFS, tmpfs) is not
    seen: Docker mounts both only while a container runs, and the mount point is an empty directory at any other time.
    """
    with _our_words(f"look at volume {name}"):
        try:
            facts = _client().inspect_volume(name)
        except docker.errors.NotFound:
            return None
    if not (engine_is_local() and facts.get("Driver") == "local" and facts.get("Mountpoint")):
        return None
    options: dict[str, str] = facts.get("Options") or {}
    if not options.get("device"):
        return Path(facts["Mountpoint"])
    is_directory = {"bind", "rbind"} & set(options.get("o", "").split(",")) and options["device"].startswith("/")
    return Path(options["device"]) if is_directory else None


def remove_volume(name: str) -> None:
    """Remove a volume with its content; one that is absent is no error, one in use is."""
    with _our_words(f"remove volume {name}"), suppress(docker.errors.NotFound):
        _client().remove_volume(name)


# --- Files of a container --------------------------------------------------------------------------------------------


def get_archive_stream(container_id: str, path: str) -> Iterator[bytes]:
    """Yield a tar of a path of a container, running or not, as Docker makes it.

    Docker tells of no error once the tar has begun: the caller proves that it is whole by reading it to tar's own end.
    Raise BackupError where the path is absent.
    """
    with _our_words(f"read {path} of container {_name(container_id)}"):
        chunks, _ = _client().get_archive(container_id, path, chunk_size=ARCHIVE_CHUNK_BYTES)
        yield from chunks


def put_archive(container_id: str, path: str, data: Iterable[bytes]) -> None:
    """Unpack a tar into a directory of a container, running or not, with the owners and modes it names."""
    with _our_words(f"write to {path} of container {_name(container_id)}"):
        _client().put_archive(container_id, path, iter(data))


# --- Programs in a container -----------------------------------------------------------------------------------------


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
    with _our_words(f"run {argv[0]} in container {_name(container_id)}"):
        # A connection of its own: the program's bytes travel on it, and it closes with the program.
        client = _new_client(_client().api_version)
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
        describe=lambda: _describe(container_id),
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
            f"{shown[0]} in container {_name(container_id)} failed with exit code {code}: {said}",
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
        with _our_words(f"ask how {name} ended"):
            facts = _client().exec_inspect(exec_id)
    except BackupError as error:
        raise ProgramFailed(
            f"nobody knows how {name} ended: {error.message}", hint="was Docker restarted meanwhile?", transient=True
        ) from error
    if facts["Running"]:
        return None
    if facts["ExitCode"] is None:
        raise ProgramFailed(f"nobody knows how {name} ended: Docker has no exit code for it", transient=True)
    return int(facts["ExitCode"])


def _describe(container_id: str) -> str:
    try:
        found = container(container_id)
    except BackupError as error:
        return error.message
    return f"container {found.name} is {found.state}" if found else "its container is gone"


def _end_marked(container_id: str, mark: str, user: str | None) -> None:
    """End a program and what it started, politely first; a container that runs no more has none."""
    try:
        found = container(container_id)
        if found is None or found.state not in ("running", "paused"):
            return
        if found.state == "paused":
            raise BackupError(f"{found.name} is paused")
        with _our_words(f"end a program in container {found.name}"):
            client = _client()
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


# --- Reaching a server in a container --------------------------------------------------------------------------------


def host_can_reach(address: str, port: int, timeout_seconds: float = 2.0) -> bool:
    """Tell whether this host can open a TCP connection to an address (of a container, for one)."""
    try:
        with socket.create_connection((address, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False


@contextmanager
def relay(container_id: str, port: int) -> Iterator[tuple[str, int]]:
    """Give a (host, port) on this host's loopback whose connections arrive at the container's own address and port.

    For hosts with no route to the containers (a worker in a container, Docker Desktop). They arrive at the container's
    address on its network, not at its loopback, so that the server asks for the password. The container needs bash. The relay is a process of
    its own: a library that holds Python's lock while it waits for the server would keep threads of ours from carrying the answer.
    """
    command = [sys.executable, "-m", "tasks.adapters.engine.relay_process", container_id, str(port)]
    with start_companion(command, ready_seconds=RELAY_READY_SECONDS) as said:
        host, _, number = said.rpartition(" ")
        yield host, int(number)


@contextmanager
def listening(container_id: str, port: int) -> Iterator[tuple[str, int]]:
    """Carry connections to a container from this very process; see `relay`."""
    found = container(container_id)
    if found is None or found.state != "running":
        raise BackupError(f"cannot reach port {port}: {_describe(container_id)}")
    address = found.addresses[0] if found.addresses else "127.0.0.1"
    with relay_program.listening(
        lambda: start_program(container_id, relay_program.command(address, port), stdin=True), name=found.name
    ) as place:
        yield place
