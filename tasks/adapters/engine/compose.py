"""`docker compose`, through the one door for programs.

Every call names directory, files and project, so that neither the caller's directory nor its environment chooses the stack.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import yaml

from tasks.adapters.host.bounded_yaml import BoundedLoader
from tasks.adapters.host.outside_files import CONFIGURATION, UnfitFile, read_outside
from tasks.adapters.host.processes import Output, run, run_side_by_side
from tasks.core.errors import BackupError, ProgramFailed, Refused
from tasks.core.stack.compose_model import (
    DOT_ENV,
    ComposeModel,
    choose_files,
    may_name_env_files,
    parse_dot_env,
    parse_model,
    with_env_files,
)

logger = logging.getLogger(__name__)

CONFIG_TIMEOUT_SECONDS = 60
VERSION_TIMEOUT_SECONDS = 30
SELDOM_LIMIT_FILES = 50

# By these a shell, a timer or a worker may have chosen another stack; a stack's own are in its `.env`, which still counts.
CHOOSING_VARIABLES = (
    "COMPOSE_FILE",
    "COMPOSE_PATH_SEPARATOR",
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_PROFILES",
    "COMPOSE_ENV_FILES",
    "COMPOSE_DISABLE_ENV_FILE",
)

Pull = Literal["always", "missing", "never"]


def compose_files_in(directory: Path) -> tuple[Path, ...]:
    """Return the compose files of a directory by Compose's own rule; empty where there are none.

    COMPOSE_FILE in the directory's `.env` wins; else the first of Compose's usual names, and the override beside it.
    """
    try:
        names = [path.name for path in directory.iterdir()]
    except OSError as error:
        raise Refused(f"the directory {directory} cannot be read: {error.strerror}", hint="run with sudo?") from error
    chosen = choose_files(names, _dot_env(directory))
    return tuple((directory / name).absolute() for name in chosen)


def env_files_beside(directory: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    """Return what `--env-file` must name so that Compose reads the `.env` files that it would read if called in this directory.

    To Compose a project lives where its first compose file is, and its `.env` is read from there by itself. Where that is elsewhere,
    the one of the current directory is read too, and wins.
    """
    base = files[0].parent if files else directory
    if base == directory:
        return ()
    return tuple(path for path in (base / DOT_ENV, directory / DOT_ENV) if path.is_file())


def files_named_in(compose_file: Path) -> tuple[Path, ...]:
    """Return the further files that a compose file takes in by `include` and `extends`, to any depth.

    Compose resolves them silently, so they are found by reading the YAML. A name with a variable in it is left out.
    """
    found: list[Path] = []
    todo = [compose_file]
    while todo and len(found) < SELDOM_LIMIT_FILES:
        current = todo.pop(0)
        for name in _references(current):
            path = (current.parent / name).absolute()
            if "$" not in name and path not in found and path != compose_file:
                found.append(path)
                if path.suffix in (".yml", ".yaml"):
                    todo.append(path)
    return tuple(found)


def compose_config(
    directory: Path,
    files: Sequence[Path],
    project: str | None = None,
    *,
    profiles: Sequence[str] = (),
    env_files: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> ComposeModel:
    """Return what the compose files say once Compose has resolved them; nothing needs to run.

    Raise Refused, with the file and the reason, where Compose cannot make sense of them.
    """
    words = _words(directory, files, project, profiles=profiles, env_files=env_files)
    printed, *unresolved = _configs(words, directory, environment, with_unresolved=_may_name_env_files(files))
    if isinstance(printed, ProgramFailed):
        _raise_told(printed, directory)
    model = parse_model(printed.stdout, warnings=_warnings(printed.stderr))
    for each in unresolved:
        if isinstance(each, ProgramFailed):
            # Only Compose before 2.33 lacks the option; then the env files are found by reading the YAML.
            logger.debug("Compose cannot list the env files: %s", each.message)
        else:
            model = with_env_files(model, each.stdout)
    return model


def _may_name_env_files(files: Sequence[Path]) -> bool:
    """Tell whether a second answer of Compose's may say more: few stacks have env files, and it costs 60 ms of a core."""
    try:
        return not files or any(may_name_env_files(read_outside(file, CONFIGURATION)[0]) for file in files)
    except (OSError, UnfitFile):
        return True


def _configs(
    words: Sequence[str], directory: Path, environment: Mapping[str, str] | None, *, with_unresolved: bool
) -> list[Output | ProgramFailed]:
    """Ask for what the files say and, where wanted, for that without the env files, side by side.

    How Compose is called is asked beside them where it is not known yet: the usual way is nearly always right.
    """

    def answers(command: Sequence[str], *others: Sequence[str]) -> list[Output | ProgramFailed]:
        config = [*command, *words, "config", "--format", "json"]
        unresolved = [[*config, "--no-env-resolution"]] if with_unresolved else []
        return run_side_by_side(
            [config, *unresolved, *others],
            timeout_seconds=CONFIG_TIMEOUT_SECONDS,
            directory=directory,
            environment=environment,
            without=CHOOSING_VARIABLES,
        )

    if _known:
        return answers(_known[0].command)
    *found, version = answers(_USUAL, _asking_for_version(_USUAL))
    _known.append(_choose(version))
    return found if _known[0].command == _USUAL else answers(_known[0].command)


def compose_hashes(
    directory: Path, files: Sequence[Path], project: str, *, env_files: Sequence[Path] = ()
) -> dict[str, str]:
    """Return Compose's digest of each service as the files are now; its containers' label differs if they were edited since."""
    head = _head(directory, files, project, env_files=env_files)
    printed = _compose([*head, "config", "--hash", "*"], directory, CONFIG_TIMEOUT_SECONDS, environment=None).stdout
    return {
        name: digest for name, _, digest in (line.strip().partition(" ") for line in printed.splitlines()) if digest
    }


def compose_version() -> str:
    """Return the version of Compose on this machine, as its label on containers has it."""
    return _compose_here().version


def compose_up(
    directory: Path,
    files: Sequence[Path],
    project: str,
    services: Sequence[str] = (),
    *,
    timeout_seconds: float,
    no_start: bool = False,
    with_dependencies: bool = True,
    pull: Pull = "missing",
    env_files: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Create the services (all without names) as the files describe them and, unless `no_start`, start them."""
    words = ["up", "--no-start"] if no_start else ["up", "--detach"]
    words += ["--pull", pull]
    if not with_dependencies:
        words.append("--no-deps")
    head = _head(directory, files, project, env_files=env_files)
    _compose([*head, *words, *services], directory, timeout_seconds, environment=environment)


def compose_down(
    directory: Path,
    files: Sequence[Path],
    project: str,
    *,
    timeout_seconds: float,
    remove_volumes: bool = False,
    env_files: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Remove the project's containers and networks, also of services that the files no longer name."""
    words = ["down", "--remove-orphans"]
    if remove_volumes:
        words.append("--volumes")
    head = _head(directory, files, project, env_files=env_files)
    _compose([*head, *words], directory, timeout_seconds, environment=environment)


_USUAL, _STANDALONE = ("docker", "compose"), ("docker-compose",)


@dataclass(frozen=True, slots=True)
class _Compose:
    """How Compose is called on this machine, and its version without a `v` before it."""

    command: tuple[str, ...]
    version: str


# Found out once.
_known: list[_Compose] = []


def compose_command() -> tuple[str, ...]:
    """Return how Compose v2 is called on this machine; raise Refused where there is none."""
    return _compose_here().command


def _compose_here() -> _Compose:
    if not _known:
        _known.append(_choose(_version_told(_USUAL)))
    return _known[0]


def forget_compose_command() -> None:
    """Find out anew how Compose is called, at the next call."""
    _known.clear()


def _asking_for_version(command: Sequence[str]) -> list[str]:
    return [*command, "version", "--short"]


def _version_told(command: Sequence[str]) -> Output | ProgramFailed:
    return run_side_by_side([_asking_for_version(command)], timeout_seconds=VERSION_TIMEOUT_SECONDS)[0]


def _choose(usual: Output | ProgramFailed) -> _Compose:
    """Choose how Compose is called, by what the usual way said of its version; raise Refused where no way is Compose v2."""
    problems = []
    for command in (_USUAL, _STANDALONE):
        said = usual if command == _USUAL else _version_told(command)
        if isinstance(said, ProgramFailed):
            problems.append(said.message)
            continue
        version = said.stdout.strip().removeprefix("v")
        if not version.startswith("1."):
            return _Compose(command, version)
        problems.append(f"{command[0]} is version {version}")
    raise Refused(
        f"Docker Compose v2 is not installed: {'; '.join(problems)}", hint="install the package docker-compose-plugin"
    )


def _head(
    directory: Path,
    files: Sequence[Path],
    project: str | None,
    *,
    profiles: Sequence[str] = (),
    env_files: Sequence[Path] = (),
) -> list[str]:
    return [*compose_command(), *_words(directory, files, project, profiles=profiles, env_files=env_files)]


def _words(
    directory: Path, files: Sequence[Path], project: str | None, *, profiles: Sequence[str], env_files: Sequence[Path]
) -> list[str]:
    words = ["--project-directory", str(directory)]
    for file in files:
        words += ["--file", str(file)]
    if project:
        words += ["--project-name", project]
    for profile in profiles:
        words += ["--profile", profile]
    for file in env_files:
        words += ["--env-file", str(file)]
    return words


def _compose(
    command: Sequence[str], directory: Path, timeout_seconds: float, *, environment: Mapping[str, str] | None
) -> Output:
    try:
        return run(
            command,
            timeout_seconds=timeout_seconds,
            directory=directory,
            environment=environment,
            without=CHOOSING_VARIABLES,
        )
    except ProgramFailed as error:
        _raise_told(error, directory)


def _raise_told(error: ProgramFailed, directory: Path) -> NoReturn:
    """Raise what Compose said in our words; what did not run to its end is told as it is."""
    if error.exit_code_seen is None:
        raise error
    raise _in_our_words(error, directory) from error


def _in_our_words(error: ProgramFailed, directory: Path) -> BackupError:
    command = error.command
    reason = _last_message(error.stderr)
    if "permission denied" in reason and "docker.sock" in reason:
        return Refused(
            "this user may not use Docker's socket: permission denied",
            hint="run with sudo, or as a user of the group docker",
        )
    if "Cannot connect to the Docker daemon" in reason or "failed to connect to the docker API" in reason:
        return Refused("Docker is not running", hint="start it (systemctl start docker), or set DOCKER_HOST")
    if "config" in command:
        files = ", ".join(command[i + 1] for i, word in enumerate(command) if word == "--file")
        return Refused(
            f"the compose files of {directory} make no sense to Docker Compose ({files}): {reason}",
            hint=f"try: docker compose --project-directory '{directory}' config",
        )
    return ProgramFailed(
        f"docker compose {_verb(command)} failed in {directory}: {reason}",
        command=error.command,
        exit_code_seen=error.exit_code_seen,
        stderr=error.stderr,
    )


def _verb(command: Sequence[str]) -> str:
    return next((word for word in command if word in ("up", "down")), "")


def _last_message(stderr: str) -> str:
    """Return Compose's reason: its last line that is not a warning or progress."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "level=warning" not in line]
    return lines[-1] if lines else "(no message)"


def _warnings(stderr: str) -> list[str]:
    found = re.findall(r'level=warning msg="((?:[^"\\]|\\.)*)"', stderr)
    return sorted({json.loads(f'"{text}"') for text in found})


def _dot_env(directory: Path) -> dict[str, str]:
    try:
        content, _ = read_outside(directory / DOT_ENV, CONFIGURATION)
    except (FileNotFoundError, UnfitFile):
        return {}
    return parse_dot_env(content.decode(errors="replace"))


def _references(compose_file: Path) -> list[str]:
    try:
        text, _ = read_outside(compose_file, CONFIGURATION)
        content = yaml.load(text.decode(errors="replace"), BoundedLoader)
    except (FileNotFoundError, UnfitFile, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        return []
    if not isinstance(content, dict):
        return []
    names: list[str] = []
    for entry in _as_list(content.get("include")):
        fields = entry if isinstance(entry, dict) else {"path": entry}
        names += [*_names(fields.get("path")), *_names(fields.get("env_file"))]
    services = content.get("services")
    for service in services.values() if isinstance(services, dict) else ():
        extends = service.get("extends") if isinstance(service, dict) else None
        if isinstance(extends, dict):
            names += _names(extends.get("file"))
    return names


def _as_list(value: object) -> list[object]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _names(value: object) -> list[str]:
    """Give what can be names; lists in lists are none, and written out, aliases of aliases would fill the memory."""
    return [str(each) for each in _as_list(value) if isinstance(each, str | int | float) and str(each)]
