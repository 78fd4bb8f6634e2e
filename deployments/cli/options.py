"""Options that every command has, how they name an installation, and how results and errors leave the program."""

from __future__ import annotations

import errno
import functools
import inspect
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar, get_type_hints

import typer

from tasks.adapters.host.interruption import raising
from tasks.adapters.host.settings_file import settings_path
from tasks.core.errors import BackupError, UsageError
from tasks.core.plain_text import PlainFormatter, plain
from tasks.core.policy.plain_input import shown, text_problem
from tasks.core.policy.settings import INSTALLATION_ID, PROJECT
from tasks.core.policy.status import Status
from tasks.run.config import InstallationConfig, config_at
from tasks.run.context import config_of, given_configs, known_configs

if TYPE_CHECKING:
    from prefect import Flow

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

COMMON = {
    "installation": Annotated[
        str | None,
        typer.Option(
            "--installation", "-i", help="An installation's id in the settings file; left out: the only one, or `main`."
        ),
    ],
    "settings": Annotated[Path | None, typer.Option(help="The settings file (or MAILARCHIVER_BACKUP_SETTINGS).")],
    "directory": Annotated[
        Path | None, typer.Option("--directory", "-d", help="Where the compose file is, instead of a settings entry.")
    ],
    "repository": Annotated[Path | None, typer.Option("--repository", "-r", help="Where the archives are.")],
    "project": Annotated[
        str | None, typer.Option("--project", "-p", help="The compose project, where a directory has several.")
    ],
    "as_json": Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else there.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Say what is being done.")],
}

BackupName = Annotated[str, typer.Argument(metavar="[BACKUP]", help="An archive's path, a backup's name, or `latest`.")]
IdentityFile = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        help="A file with the key that opens encrypted archives: an age identity or an SSH key (or MAILARCHIVER_BACKUP_IDENTITY).",
    ),
]
FromTarget = Annotated[
    str | None,
    typer.Option("--from", metavar="TARGET", help="Read from this target of `copies`, streamed; nothing is kept here."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts.")]


@dataclass(frozen=True, slots=True)
class Call:
    """How a command was called: on which work, how to answer, and the compose project that was named."""

    config: InstallationConfig | None
    as_json: bool
    project: str | None = None

    @property
    def installation_config(self) -> InstallationConfig:
        """Give the work; raise UsageError where the command needs one and none was named."""
        if self.config is None:
            raise UsageError(
                "no installation was named",
                hint="give --directory DIR --repository DIR, or --installation ID with a settings file",
            )
        return self.config

    def tell(self, text: str) -> None:
        """Say on the way what is about to be done; the result is told by `answer`."""
        sys.stderr.write(plain(text) + "\n")
        sys.stderr.flush()

    def answer(self, value: dict[str, Any] | list[Any], text: str) -> None:
        """Print the result: as JSON, or as text for a person."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, default=str) + "\n")
        else:
            sys.stdout.write(plain(text.rstrip("\n")) + "\n")


@contextmanager
def identity_used(identity: Path | None) -> Iterator[None]:
    """Open encrypted archives with the keys of a file within the block; raise UsageError where it cannot be used."""
    from tasks.adapters.archive.identity_file import read_identities
    from tasks.adapters.archive.open_keys import opening_with

    with opening_with(read_identities(identity) if identity is not None else None):
        yield


@contextmanager
def reading_from(call: Call, target: str | None, backup: str = "latest") -> Iterator[Call]:
    """Give the call whose archives are those of a target within the block; the same call where none was named."""
    if target is None:
        yield call
        return
    from tasks.copies.view import require_name, target_view

    require_name(backup)
    with target_view(call.installation_config, target) as config, given_configs({config.id: config}):
        yield replace(call, config=config)


def run_flow(flow: Flow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a flow here, without a server. Prefect is imported only now: help and wrong usage are told at once."""
    from tasks.surroundings import run_flow as run

    return run(flow, *args, **kwargs)


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Give a command the common options; it gets them as its first argument, a `Call`."""
    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in list(inspect.signature(function).parameters.values())[1:]
    ]
    defaults = {"as_json": False, "verbose": False}
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=annotation)
        for name, annotation in COMMON.items()
    ]

    @functools.wraps(function)
    def run(**options: Any) -> None:
        asked = {name: options.pop(name) for name in COMMON}
        _set_up_logging(asked["verbose"])
        with answering(asked["as_json"]):
            refuse_bad_input({**asked, **options})
            if asked["settings"]:
                os.environ["MAILARCHIVER_BACKUP_SETTINGS"] = str(asked["settings"])
            config = _config(asked)
            with given_configs({config.id: config} if config else {}):
                function(Call(config, asked["as_json"], asked["project"]), **options)

    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return run


def refuse_bad_input(options: Mapping[str, Any]) -> None:
    """Raise UsageError for an option or argument that can be no name and no path: NUL, not UTF-8, too long; or one that is empty."""
    for name, value in options.items():
        if isinstance(value, str | Path):
            what = text_problem(str(value)) or ("is empty" if not str(value) else "")
            if what:
                raise UsageError(
                    f"{name} {shown(str(value))} {what}", hint="see --help, and `mailarchiver-backup list` for names"
                )
    for name, pattern in (("installation", INSTALLATION_ID), ("project", PROJECT)):
        if options.get(name) is not None and not re.fullmatch(pattern, options[name]):
            raise UsageError(
                f"{name} {shown(options[name])} is not a name of that kind", hint=f"it must match {pattern}"
            )


def _resolved(place: Path, what: str) -> Path:
    """Follow a path's links; raise UsageError where it cannot be followed, or where one of its directories is none."""
    try:
        found = place.resolve()
        nearest = next(each for each in (found, *found.parents) if os.path.lexists(each))
        if not nearest.is_dir():
            raise UsageError(f"the {what} {found}: {nearest} is not a directory", hint="is the path right?")
    except PermissionError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its links lead in a circle"
        raise UsageError(
            f"the {what} {shown(str(place))} cannot be used: {reason}", hint="is the path right?"
        ) from error
    return found


def _config(asked: dict[str, Any]) -> InstallationConfig | None:
    if asked["directory"] is not None:
        directory = _resolved(asked["directory"], "directory")
        repository = asked["repository"] or directory / "backups"
        name = asked["installation"] or re.sub(r"[^a-z0-9_-]+", "-", directory.name.lower()).strip("-_")[:32] or "main"
        found = config_at(name, directory, _resolved(repository, "repository"), project=asked["project"])
        return _encrypted_as_in_settings(found)
    if asked["installation"] is not None or _has_settings():
        found = config_of(asked["installation"] or _only_installation())
        if asked["repository"] is None:
            return found
        raise UsageError("--repository goes with --directory; an installation of the settings file has its own")
    if asked["repository"] is not None:
        return config_at("main", Path.cwd(), _resolved(asked["repository"], "repository"))
    return None


def _encrypted_as_in_settings(config: InstallationConfig) -> InstallationConfig:
    """Encrypt as the settings ask for this directory, also where it was named by its path: no plain archive is made by a detour."""
    try:
        same = [each for each in known_configs() if each.directory.resolve() == config.directory]
    except BackupError as error:
        logger.warning("the settings are not looked at: %s", error.message)
        return config
    encryption = next((each.settings.encryption for each in same if each.settings.encryption), None)
    return replace(config, settings=config.settings.model_copy(update={"encryption": encryption}))


def _only_installation() -> str:
    """Name the installation that is meant where none is named: the settings' only one, else `main`."""
    known = [config.id for config in known_configs()]
    return known[0] if len(known) == 1 else "main"


def _has_settings() -> bool:
    return settings_path() is not None


class Interrupted(BaseException):
    """A signal asked us to end; every `with` and `finally` runs on the way out.

    No `Exception`, as KeyboardInterrupt is none: a library that catches what it does not know must not swallow it.
    """


def catch_signals() -> None:
    """Turn SIGTERM, SIGINT and SIGHUP into `Interrupted`, so that what is borrowed is given back."""

    interrupt = raising(lambda number: Interrupted(f"interrupted by {signal.Signals(number).name}"))
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, interrupt)


_OUR_MISTAKES = {errno.EBADF, errno.EFAULT, errno.EDEADLK}


@contextmanager
def _system_errors_told() -> Iterator[None]:
    """Say what the system refused, and whose permission is missing, wherever it was met: that is no fault of the program."""
    try:
        yield
    except PermissionError as error:
        place = error.filename or "something"
        account = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
        raise BackupError(
            f"{place} is closed to {account}: {error.strerror or error}",
            hint="run it as root, or as the user who owns that",
        ) from error
    except OSError as error:
        if error.errno in _OUR_MISTAKES or error.filename is None:
            raise
        raise BackupError(
            f"{os.fsdecode(error.filename)}: {error.strerror or error}",
            hint="that is what the system says of this place; run again with --verbose to see where it was met",
        ) from error


@contextmanager
def answering(as_json: bool) -> Iterator[None]:
    """Turn errors into one sentence, a hint and an exit code; a traceback is for --verbose alone."""
    try:
        with _system_errors_told():
            yield
    except BackupError as error:
        logger.debug("", exc_info=True)
        notes = [str(note) for note in getattr(error, "__notes__", [])]
        for line in (f"error: {error}", *notes):
            sys.stderr.write(plain(line) + "\n")
        if as_json:
            told = {"error": error.message, "hint": error.hint, "notes": notes, "exit_code": error.exit_code}
            sys.stdout.write(json.dumps(told) + "\n")
        raise typer.Exit(error.exit_code) from None
    except Interrupted as interrupted:
        notes = [str(note) for note in getattr(interrupted, "__notes__", [])]
        sys.stderr.write(plain("\n".join([f"error: {interrupted}", *notes])) + "\n")
        if as_json:
            sys.stdout.write(json.dumps({"error": str(interrupted), "notes": notes, "exit_code": 1}) + "\n")
        raise typer.Exit(1) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        logger.debug("", exc_info=True)
        sys.stderr.write(
            f"error: unexpected {type(error).__name__}: {plain(str(error))}\nHINT: run again with --verbose and report what it prints\n"
        )
        if as_json:
            sys.stdout.write(
                json.dumps({"error": f"unexpected {type(error).__name__}: {error}", "exit_code": 1}) + "\n"
            )
        raise typer.Exit(1) from None


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.WARNING,
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    for noisy in ("urllib3", "docker", "asyncio", "httpcore", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def confirmed(question: str, expected: str, *, yes: bool) -> str:
    """Return the confirmation a destructive flow wants: given by --yes, or typed. End of input is a no, never another question."""
    if yes:
        return expected
    if not sys.stdin.isatty():
        raise UsageError("this replaces data and nobody is there to confirm it", hint="give --yes")
    sys.stderr.write(f"{plain(question)}\nType {expected!r} to go on: ")
    sys.stderr.flush()
    typed = sys.stdin.readline().strip()
    if typed != expected:
        raise UsageError(f"not confirmed ({typed!r}); nothing was changed")
    return typed


def problems_told(status: Status) -> list[dict[str, str]]:
    """Give the problems of a status as they stand in a command's JSON."""
    return [{"kind": each.kind, "text": each.text} for each in status.problems]
