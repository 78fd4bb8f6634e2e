"""Runs are remembered: how each ended goes to the history, the log file, and to whom the settings name."""

from __future__ import annotations

import logging
import logging.handlers
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path

from tasks.adapters.host.files import make_directory
from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.adapters.host.time_limit import time_limit
from tasks.adapters.outbox.history_file import append_history
from tasks.adapters.outbox.notifications import send_alarm
from tasks.core.errors import BackupError, Busy
from tasks.core.plain_text import PlainFormatter, PlainRecords
from tasks.core.policy.history import Entry, Outcome
from tasks.core.policy.settings import AlarmKind
from tasks.recovery.recover import Recovered
from tasks.run.config import InstallationConfig

logger = logging.getLogger(__name__)

LOG_BYTES, LOG_FILES = 10_000_000, 5
OUR_LOGGERS = ("tasks", "flows", "deployments")
_plain_records = PlainRecords()


class Run:
    """A run that is remembered. One that works to its end and finds something wrong says so with `fail`."""

    def __init__(self) -> None:
        self.failure = ""

    def fail(self, message: str) -> None:
        """Let the run stand as failed in the history, although nothing is raised; the caller sends the notification."""
        self.failure = message


_outermost: ContextVar[bool] = ContextVar("outermost", default=True)


@contextmanager
def remembered(config: InstallationConfig, run: str) -> Iterator[Run]:
    """Remember how the block ends; an exception is told to people by the outermost such block alone.

    Neither a history that cannot be written nor people who cannot be reached change how the run ends.
    """
    at, begun = datetime.now(UTC), time.monotonic()
    outermost = _outermost.get()
    this = Run()
    token = _outermost.set(False)

    def end(outcome: Outcome, message: str = "", *, told: bool = False) -> None:
        remember(
            config, Entry(run=run, at=at, seconds=round(time.monotonic() - begun, 3), outcome=outcome, message=message)
        )
        if outcome in ("failed", "interrupted") and outermost and not told:
            notify(config, "failure", f"{run} of {config.id} {outcome}", message)

    for each in OUR_LOGGERS:
        for handler in logging.getLogger(each).handlers:
            handler.addFilter(_plain_records)
    try:
        limit = time_limit(config.limit_seconds, f"{run} of {config.id}") if outermost else nullcontext()
        with _log_file(config, run), limit:
            yield this
    except Busy as error:
        end("busy", error.message)
        raise
    except BackupError as error:
        end("failed", str(error))
        raise
    except Exception as error:
        end("failed", f"{type(error).__name__}: {error}")
        raise
    except BaseException as error:
        end("interrupted", str(error) or type(error).__name__)
        raise
    else:
        end("failed" if this.failure else "succeeded", this.failure, told=True)
    finally:
        _outermost.reset(token)


def remember(config: InstallationConfig, entry: Entry) -> None:
    """Add an entry to the installation's history; where that fails it is logged and nothing else happens."""
    try:
        append_history(config.id, entry)
    except BackupError as error:
        logger.warning("%s", error.message)


def notify(config: InstallationConfig, kind: AlarmKind, title: str, body: str, *, good: bool = False) -> None:
    """Tell people something of an installation, `good` when it is good news; nothing happens where nobody is named."""
    if config.settings.notifications:
        place = f"{config.directory} on {socket.gethostname()}"
        send_alarm(
            config.settings.notifications, kind, f"mailarchiver-backup: {title}", f"{body}\n\n{place}", good=good
        )


def notify_recoveries(config: InstallationConfig, recovered: Sequence[Recovered]) -> None:
    """Record and send what dead runs had left and what was done about it: nobody saw them die."""
    recovered = _untold(config, recovered)
    if not recovered:
        return
    text = "\n".join(f"{'settled' if each.settled else 'NOT settled'}: {each.message}" for each in recovered)
    outcome: Outcome = "succeeded" if all(each.settled for each in recovered) else "failed"
    remember(
        config,
        Entry(run="recovery", at=datetime.now(UTC), seconds=0, outcome=outcome, message=f"a run had died: {text}"),
    )
    notify(config, "recovery", f"a run of {config.id} had died", text)


def _untold(config: InstallationConfig, recovered: Sequence[Recovered]) -> list[Recovered]:
    """Leave out what is still unsettled and was told within `alarms.repeat_hours`: the timer tries again each minute."""
    place, now = state_subdirectory("alarms") / f"{config.id}.unsettled.json", datetime.now(UTC)
    left = [each for each in recovered if not each.settled]
    if not left and not place.exists():
        return list(recovered)
    try:
        told = {str(name): str(at) for name, at in (read_json(place) or {}).items()}
        repeat = timedelta(hours=config.settings.alarms.repeat_hours)
        kept = {name: at for name, at in told.items() if now - datetime.fromisoformat(at) < repeat}
        news = [each for each in recovered if each.settled or f"{each.kind} {each.owner}" not in kept]
        still = {name: at for name, at in kept.items() if name in {f"{each.kind} {each.owner}" for each in left}}
        write_json(place, still | {f"{each.kind} {each.owner}": now.isoformat() for each in news if not each.settled})
    except (BackupError, ValueError, TypeError) as error:
        logger.warning("what was told of dead runs cannot be remembered: %s", error)
        return list(recovered)
    return news


class PrivateLog(logging.handlers.RotatingFileHandler):
    """A log that only its owner reads, also after it was rotated, and where it lay there with another mode."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).touch(mode=0o600)
        stream = super()._open()
        try:
            os.fchmod(stream.fileno(), 0o600)
        except OSError:
            stream.close()
            raise
        return stream


@contextmanager
def _log_file(config: InstallationConfig, run: str) -> Iterator[None]:
    """Also write the log to the file that the settings name; one that cannot be opened is said and fails nothing."""
    if config.settings.log_file is None:
        yield
        return
    try:
        make_directory(config.settings.log_file.parent)
        handler = PrivateLog(config.settings.log_file, maxBytes=LOG_BYTES, backupCount=LOG_FILES)
    except OSError as error:
        logger.warning("the log file %s cannot be written: %s", config.settings.log_file, error.strerror)
        yield
        return
    handler.setFormatter(PlainFormatter(f"%(asctime)s %(levelname)s {config.id} {run}: %(message)s"))
    ours = [logging.getLogger(name) for name in OUR_LOGGERS]
    levels = [each.level for each in ours]
    for each in ours:
        each.addHandler(handler)
        each.setLevel(min(each.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        for each, level in zip(ours, levels, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)
        handler.close()
