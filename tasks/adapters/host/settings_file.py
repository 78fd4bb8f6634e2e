"""The operator's settings file: where it is looked for, and how its YAML is read."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tasks.adapters.host.bounded_yaml import BoundedLoader
from tasks.adapters.host.outside_files import SETTINGS, UnfitFile, read_outside
from tasks.core.errors import UsageError
from tasks.core.policy.settings import Settings, parse_settings

logger = logging.getLogger(__name__)

SETTINGS_VARIABLE = "MAILARCHIVER_BACKUP_SETTINGS"
VALUES_LIMIT = 20_000
SYSTEM_SETTINGS = Path("/etc/mailarchiver-backup/settings.yaml")


def settings_path(argument: Path | None = None) -> Path | None:
    """Find the settings file: the argument, what MAILARCHIVER_BACKUP_SETTINGS names, the system's, the user's own.

    The first two are taken at their word; None where neither is given and no file is in the usual places.
    """
    if argument is not None:
        return argument
    named = os.environ.get(SETTINGS_VARIABLE, "")
    if named:
        return Path(named)
    return next((place for place in (SYSTEM_SETTINGS, own_settings()) if place.exists()), None)


def own_settings() -> Path:
    """Give the place of a user's own settings file."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "mailarchiver-backup" / "settings.yaml"


def load_settings(path: Path | None = None) -> Settings:
    """Read and check the settings.

    Raise UsageError where there is no file, it cannot be read, other users may change it, or anything in it is wrong; every
    problem of its content is told at once.
    """
    place = settings_path(path)
    if place is None:
        raise UsageError(
            f"there is no settings file: neither ${SETTINGS_VARIABLE}, nor {SYSTEM_SETTINGS}, nor one of your own",
            hint="`mailarchiver-backup init` writes one; or give --directory and --repository",
        )
    text = _read(place)
    loader = None
    try:
        loader = _Loader(text)
        content = loader.get_bounded_data()
    except yaml.YAMLError as error:
        raise UsageError(
            f"the settings in {place} are not YAML: {_one_line(error)}", hint="check the indentation"
        ) from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        # What looks like a date, a number or a key, and is none: YAML's own words for it are Python's.
        raise UsageError(
            f"the settings in {place} hold a value that cannot be read: {_one_line(error)[:200]}",
            hint="a date that no calendar has, a number of thousands of digits, or brackets in brackets without end?",
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    settings = parse_settings(content, source=str(place), known_problems=tuple(loader.duplicates))
    _refuse_one_place_twice(settings, place)
    return settings


class _Loader(BoundedLoader):
    """YAML's safe loader, which also notes keys that are given twice: YAML itself silently takes the last."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []

    def get_bounded_data(self) -> Any:
        """Give the document; raise YAMLError where its aliases would make millions of values of a few lines."""
        node = self.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > VALUES_LIMIT:
            raise yaml.YAMLError(f"its aliases stand for more than {VALUES_LIMIT:,} values")
        return self.construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in seen:
                    self.duplicates.append(
                        f"line {line}: the key {key.value} was given in line {seen[key.value]} already"
                    )
                seen.setdefault(key.value, line)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values that a node stands for, aliases written out; one that holds itself counts as too many."""
    if id(node) not in known:
        known[id(node)] = VALUES_LIMIT + 1
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = list(node.value)
        known[id(node)] = 1 + sum(_size(each, known) for each in inner)
    return known[id(node)]


def _read(place: Path) -> str:
    try:
        content, found = read_outside(place, SETTINGS)
        text = content.decode("utf-8")
    except (FileNotFoundError, UnfitFile, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        reason = error.reason if isinstance(error, UnfitFile) else reason
        raise UsageError(f"the settings file {place} cannot be read: {reason}", hint="is the path right?") from error
    if found.st_mode & stat.S_IWOTH:
        raise UsageError(
            f"every user may write to the settings file {place} (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod 0600 {place}",
        )
    if found.st_uid not in {0, os.geteuid()}:
        raise UsageError(
            f"the settings file {place} belongs to user {found.st_uid}, who could have it name any directory",
            hint=f"chown it to the user that runs the backups (now {os.geteuid()}) or to root",
        )
    return text


def _refuse_one_place_twice(settings: Settings, place: Path) -> None:
    """Follow links: two names of one directory are one installation."""
    owners: dict[str, str] = {}
    for name, installation in settings.installations.items():
        real = os.path.realpath(installation.directory)
        if real in owners:
            raise UsageError(
                f"the settings in {place} name one directory twice: {owners[real]} and {name} both lead to {real}"
            )
        owners[real] = name


# YAML says "found unexpected end of stream" of a quote that is left open: what is unexpected to its reader is plain to ours.
def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).replace("unexpected ", "")
