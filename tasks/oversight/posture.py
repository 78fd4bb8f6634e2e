"""Gather what the posture of an installation's backups is judged by (`tasks/core/policy/posture.py`); touch nothing."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from tasks.adapters.archive.identity import read_identity
from tasks.adapters.archive.keys_here import keys_that_open
from tasks.adapters.archive.open_keys import IDENTITY_VARIABLE
from tasks.adapters.archive.repository import list_backups
from tasks.adapters.host.exposure import listening_addresses, readable_by_all
from tasks.adapters.host.outside_files import PASSWORD, UnfitFile, read_outside
from tasks.adapters.host.settings_file import settings_path
from tasks.adapters.host.state import state_directory
from tasks.adapters.stack.discovery import discover
from tasks.core.archive.names import RECORD_EXTENSION, split_archive_name
from tasks.core.copies.judge import SeenCopies, wipeable
from tasks.core.copies.parts import archive_of
from tasks.core.errors import BackupError
from tasks.core.policy.copy_places import is_directory
from tasks.core.policy.own_addresses import ADDRESS_VARIABLE
from tasks.core.policy.posture import PostureSeen
from tasks.core.stack.diagnosis import default_passwords
from tasks.core.stack.installation import Installation
from tasks.oversight.mail_at_risk import mail_on_servers
from tasks.oversight.status import copies_seen
from tasks.run.config import InstallationConfig
from tasks.run.encryption import recipients_of
from tasks.run.own_backups import look_at

logger = logging.getLogger(__name__)

SERVER_MODULE = "deployments.server"
API_VARIABLE = "PREFECT_API_URL"
_PREFECT_FILE = "prefect.env"
_PREFECT_ADDRESS = re.compile(rf"^(?:{API_VARIABLE}|{ADDRESS_VARIABLE})=(\S+)", re.MULTILINE)


def posture_seen(config: InstallationConfig, found: Installation | None = None, *, now: datetime) -> PostureSeen:
    """Look at everything that the posture depends on; what cannot be seen is said, and is no weakness."""
    unseen: list[str] = []
    if found is None:
        try:
            found = discover(config.directory, installation_id=config.id, project=config.project)
        except BackupError as error:
            unseen.append(f"the stack: {error.message}")
    copies = copies_seen(config)
    records = look_at(config, list_backups(config.repository), now=now).records
    mail = mail_on_servers(config, records, copies, now=now, found=found)
    if mail.deletion.unknown:
        unseen.append(f"what the mail accounts delete: {mail.deletion.unknown}")
    return PostureSeen(
        encrypted=config.settings.encryption is not None,
        off_site=[(each.target.name, each.status().copies > 0) for each in copies if each.target.off_site],
        key_files=_key_files(config),
        wipeable=[each.target.name for each in copies if wipeable(each, now)],
        default_passwords=default_passwords(found) if found is not None else (),
        readable=[each for each in _private_files(config, found, copies) if readable_by_all(each)],
        listening=listening_addresses(SERVER_MODULE),
        prefect_addresses=_prefect_addresses(),
        mail=mail,
        unseen=unseen,
    )


def _key_files(config: InstallationConfig) -> list[Path]:
    """Find keys that open the archives where people leave them: beside backups and settings, in the stack, at home, among SSH's own."""
    try:
        recipients = recipients_of(config)
    except BackupError:  # told by the doctor
        return []
    if not recipients:
        return []
    home = Path.home()
    places = [
        config.repository, *_directory_targets(config), config.directory, *_settings_directory(), state_directory(),
        home, home / ".ssh", Path("/etc/ssh"),
    ]  # fmt: skip
    if named := os.environ.get(IDENTITY_VARIABLE):
        places.append(Path(named))
    return keys_that_open(recipients, dict.fromkeys(places))


def _private_files(
    config: InstallationConfig, found: Installation | None, copies: Sequence[SeenCopies]
) -> Iterator[Path]:
    """List what must be readable by its owner alone; of archives the first that is not stands for all of a directory."""
    for place in (config.repository, *_directory_targets(config)):
        archives = (path for path in _in_directory(place) if split_archive_name(archive_of(path.name) or path.name))
        yield from _first_open(archives)
        yield from _first_open(path for path in _in_directory(place) if path.name.endswith(RECORD_EXTENSION))
    settings = settings_path()
    if settings is not None:
        yield from (settings, settings.with_name(_PREFECT_FILE))
    if any(not is_directory(each.target.remote) for each in copies):
        yield config.settings.rclone_config
    yield read_identity(config.id, config.directory).key_file
    if found is not None:
        yield from (each.path for each in found.config_files)


def _first_open(paths: Iterator[Path]) -> Iterator[Path]:
    first = next((each for each in paths if readable_by_all(each)), None)
    if first is not None:
        yield first


def _in_directory(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except OSError:
        return []


def _directory_targets(config: InstallationConfig) -> list[Path]:
    return [Path(each.remote) for each in config.settings.copies if is_directory(each.remote)]


def _settings_directory() -> list[Path]:
    settings = settings_path()
    return [settings.absolute().parent] if settings is not None else []


def _prefect_addresses() -> list[str]:
    """Give the addresses at which Prefect's server is asked, as this process and the units are told."""
    found = [os.environ[name] for name in (API_VARIABLE, ADDRESS_VARIABLE) if os.environ.get(name)]
    settings = settings_path()
    if settings is not None:
        try:
            content, _ = read_outside(settings.with_name(_PREFECT_FILE), PASSWORD)
            found += _PREFECT_ADDRESS.findall(content.decode(errors="replace"))
        except (FileNotFoundError, UnfitFile, OSError) as error:
            logger.debug("%s is not looked at: %s", _PREFECT_FILE, error)
    return [each.strip("\"'") for each in found]
