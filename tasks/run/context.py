"""What a flow works on: an installation's settings, by its id. Flow parameters never carry paths; they are looked up here."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from tasks.adapters.archive.verification_keys import drop_stale_keys
from tasks.adapters.archive.writer import reclaim_partials
from tasks.adapters.host.locks import installation_lock
from tasks.adapters.host.settings_file import load_settings, settings_path
from tasks.collector import collect_as_usual
from tasks.core.errors import UsageError
from tasks.recovery.recover import Recovered, recover
from tasks.run.config import InstallationConfig
from tasks.run.history import notify_recoveries, remembered

logger = logging.getLogger(__name__)

_given: ContextVar[Mapping[str, InstallationConfig] | None] = ContextVar("configs", default=None)


@contextmanager
def given_configs(configs: Mapping[str, InstallationConfig]) -> Iterator[None]:
    """Use these configurations instead of the settings file within the block: the command line's `--directory`."""
    token = _given.set(configs)
    try:
        yield
    finally:
        _given.reset(token)


def config_of(installation_id: str) -> InstallationConfig:
    """Find an installation's configuration; raise UsageError for an id that the settings do not have."""
    given = _given.get()
    if given is not None and installation_id in given:
        return given[installation_id]
    settings = load_settings(None)
    found = settings.installations.get(installation_id)
    if found is None:
        known = ", ".join(sorted(settings.installations)) or "none"
        raise UsageError(f"there is no installation {installation_id!r} in the settings", hint=f"known: {known}")
    return InstallationConfig(installation_id, found)


def notify_recovered(recovered: Sequence[Recovered]) -> None:
    """Tell of what was settled to whom the settings name for those installations; without settings nobody is named.

    For those who settle outside a run: the watchdog, and `recover` by hand or by its timer. Raise nothing: telling must
    not undo what was done.
    """
    try:
        settings = load_settings(None)
    except UsageError as error:
        logger.info("nobody is told: %s", error.message)
        return
    for name, each in settings.installations.items():
        theirs = [one for one in recovered if one.installation_directory.resolve() == each.directory.resolve()]
        notify_recoveries(InstallationConfig(name, each), theirs)


def known_configs() -> list[InstallationConfig]:
    """Give the configuration of every installation in the settings file; none where there is no such file."""
    if settings_path(None) is None:
        return []
    return [InstallationConfig(name, each) for name, each in load_settings(None).installations.items()]


@contextmanager
def locked_config(installation_id: str, purpose: str, *, confirmed: str | None = None) -> Iterator[InstallationConfig]:
    """Give the configuration with its installation locked, and everything settled that dead runs had left.

    How the run ends is remembered, and a failure is sent to the settings' notifications. Where `confirmed` is given it
    must be the installation's id, typed to confirm that its data is replaced. Raise Busy, touching nothing, where another
    run holds the lock.
    """
    collect_as_usual()
    config = config_of(installation_id)
    if confirmed is not None and confirmed != installation_id:
        raise UsageError(
            f"this {purpose} replaces the data of {installation_id!r} and was not confirmed (confirm={confirmed!r})",
            hint=f"give confirm={installation_id!r}",
        )
    with remembered(config, purpose), installation_lock(config.directory, purpose):
        notify_recoveries(config, recover(config.directory))
        reclaim_partials(config.repository)
        drop_stale_keys(now=datetime.now(UTC))
        yield config
