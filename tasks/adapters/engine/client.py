"""The way to the Docker engine: where it is, and the SDK's client, whose exceptions end here.

The Docker SDK is known in this wing only. An engine that cannot be reached is `Refused` with one clear sentence.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import docker
import docker.context
import docker.errors
import docker.utils
import requests.exceptions

from tasks.core.errors import BackupError, Refused

ANSWER_TIMEOUT_SECONDS = 60
DEFAULT_ENGINE = "unix:///var/run/docker.sock"
# The engine says 500 also of a mount whose source is a file and should be a directory, or the other way: no waiting cures that.
WAITING_CURES_NO_MOUNT = re.compile(r"error while creating mount source path|not a directory")


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
    with in_our_words("ask Docker for its version"):
        return str(api_client().version()["Version"])


def engine_directory() -> Path | None:
    """Give where the engine keeps volumes and images; None where that is no directory of this host."""
    with in_our_words("ask Docker where it keeps its data"):
        place = Path(str(api_client().info().get("DockerRootDir") or "/nowhere"))
    return place if engine_is_local() and place.is_dir() else None


_clients: dict[tuple[str, int], docker.APIClient] = {}


def api_client() -> docker.APIClient:
    key = (engine_address(), os.getpid())
    if key not in _clients:
        try:
            _clients[key] = new_api_client(None)
        except ValueError as error:
            # An address that is none, from DOCKER_HOST or a context.
            raise docker.errors.DockerException(str(error)) from error
    return _clients[key]


def new_api_client(version: str | None) -> docker.APIClient:
    settings = docker.utils.kwargs_from_env()
    settings["base_url"] = settings.get("base_url") or engine_address()
    return docker.APIClient(version=version, timeout=ANSWER_TIMEOUT_SECONDS, **settings)


@contextmanager
def in_our_words(act: str) -> Iterator[None]:
    """Let no exception of the SDK, or of what it stands on, pass."""
    try:
        yield
    except docker.errors.APIError as error:
        said = explanation(error)
        transient = (error.status_code or 0) >= 500 and not WAITING_CURES_NO_MOUNT.search(said)
        raise BackupError(f"cannot {act}: Docker says: {said}", transient=transient) from error
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


def explanation(error: docker.errors.APIError) -> str:
    return str(error.explanation or error).strip()
