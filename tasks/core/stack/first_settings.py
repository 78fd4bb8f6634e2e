"""What `mailarchiver-backup init` writes: the commented example with a machine's own stacks in it, and units with its own paths.

Texts in, texts out: the templates are the very files that the repository shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks.core.errors import UsageError
from tasks.core.policy.plain_input import shown

# The paths that the example and the units in the repository name.
EXAMPLE_DIRECTORY, EXAMPLE_REPOSITORY = "/opt/mailarchiver", "/var/backups/mailarchiver"
UNIT_PROGRAMS, UNIT_CONFIGURATION, UNIT_STATE = (
    "/opt/mailarchiver-backup/bin",
    "/etc/mailarchiver-backup",
    "/var/lib/mailarchiver-backup",
)


@dataclass(frozen=True, slots=True)
class FoundStack:
    """A Mail Archiver stack as far as settings name it; `project` only where its directory has several."""

    name: str
    directory: Path
    project: str | None = None


@dataclass(frozen=True, slots=True)
class UnitPaths:
    """Where a machine has the programs, the settings and the state."""

    programs: Path
    settings: Path
    state: Path


def installation_ids(names: Sequence[str]) -> list[str]:
    """Give each compose project an id for the settings: `main` for a single one, else its name as far as an id allows.

    >>> installation_ids(["mail"]), installation_ids(["mail", "Büro", "mail"])
    (['main'], ['mail', 'b-ro', 'mail-2'])
    """
    if len(names) == 1:
        return ["main"]
    ids: list[str] = []
    for name in names:
        plain = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:28] or "stack"
        number, found = 1, plain
        while found in ids:
            number += 1
            found = f"{plain}-{number}"
        ids.append(found)
    return ids


def first_settings(example: str, stacks: Sequence[FoundStack], repository: Path, notes: Sequence[str] = ()) -> str:
    """Give the example with these stacks as its installations, the first with every key explained, and notes on top.

    Without a stack the example's own installation stays, to be filled in. Several stacks get a directory each within `repository`.
    """
    head, rest = example.split("\n  main:\n", 1)
    names = installation_ids([each.name for each in stacks])
    blocks = []
    for number, (name, stack) in enumerate(zip(names, stacks, strict=True)):
        place = repository / name if len(stacks) > 1 else repository
        if number == 0:
            blocks.append(f"  {name}:\n{_filled(rest, stack, place)}")
            continue
        project = f"\n    project: {_text(stack.project)}" if stack.project else ""
        blocks.append(
            f"  # Every key of {names[0]} may stand here too.\n  {name}:\n    directory: {_text(stack.directory)}\n"
            f"    repository: {_text(place)}{project}\n"
        )
    if not stacks:
        unknown = "    # No Mail Archiver was found on this machine: write its directory here.\n"
        blocks.append("  main:\n" + unknown + rest.replace(EXAMPLE_REPOSITORY, _text(repository), 1))
    told = "".join(f"# {' '.join(note.split())}\n" for note in notes)
    return told + head + "\n" + "\n".join(blocks)


def _filled(block: str, stack: FoundStack, repository: Path) -> str:
    filled = block.replace(f"directory: {EXAMPLE_DIRECTORY}\n", f"directory: {_text(stack.directory)}\n", 1)
    filled = filled.replace(f"repository: {EXAMPLE_REPOSITORY}\n", f"repository: {_text(repository)}\n", 1)
    if stack.project:
        filled = filled.replace("# project: mailarchiver\n", f"project: {_text(stack.project)}\n", 1)
    return filled


def _text(value: object) -> str:
    """Write a value so that YAML reads it as this text: plain where that is safe, else in quotes."""
    plain = str(value)
    return plain if re.fullmatch(r"/[\w./-]*", plain, re.ASCII) else json.dumps(plain)


def unit_texts(templates: Mapping[str, str], paths: UnitPaths) -> dict[str, str]:
    """Give the systemd units with a machine's own paths in place of the repository's.

    Raise UsageError for a path that a unit cannot name.
    """
    for what, path in (
        ("program", paths.programs),
        ("settings file", paths.settings),
        ("state directory", paths.state),
    ):
        if not re.fullmatch(r"/[^\x00-\x1f\x7f\"'\\$`;]*", str(path)):
            raise UsageError(
                f"the {what}'s path {shown(str(path))} cannot stand in a systemd unit",
                hint="choose one without quotes, dollar signs, backslashes and control characters",
            )
    return {name: _unit(text, paths) for name, text in templates.items()}


def _unit(text: str, paths: UnitPaths) -> str:
    default_state = PurePosixPath(UNIT_STATE)
    lines = []
    for line in text.splitlines():
        if line.startswith("#"):
            lines.append(line)
        elif line.startswith(f"ExecStart={UNIT_PROGRAMS}/"):
            program, _, arguments = line.removeprefix(f"ExecStart={UNIT_PROGRAMS}/").partition(" ")
            lines.append(f"ExecStart={_quoted(str(paths.programs / program))} {arguments}")
            if PurePosixPath(paths.state) != default_state and " server " not in line:
                lines.append(f"Environment={_quoted(f'MAILARCHIVER_BACKUP_STATE={paths.state}')}")
        elif line == f"Environment=MAILARCHIVER_BACKUP_SETTINGS={UNIT_CONFIGURATION}/settings.yaml":
            lines.append(f"Environment={_quoted(f'MAILARCHIVER_BACKUP_SETTINGS={paths.settings}')}")
        elif line.startswith(f"EnvironmentFile={UNIT_CONFIGURATION}/"):
            lines.append(f"EnvironmentFile={_specifiers(str(paths.settings.parent))}/prefect.env")
        elif line.startswith(f"ConditionDirectoryNotEmpty={UNIT_STATE}/"):
            lines.append(f"ConditionDirectoryNotEmpty={_specifiers(str(paths.state))}/journals")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _specifiers(path: str) -> str:
    return path.replace("%", "%%")


def _quoted(word: str) -> str:
    word = _specifiers(word)
    return word if re.fullmatch(r"[\w./=:@%+,-]+", word, re.ASCII) else f'"{word}"'
