"""`mailarchiver-backup init`: first settings and systemd units for this machine; nothing is overwritten unasked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from deployments.password import AUTH_VARIABLE, FILE_BESIDE_SETTINGS, random_auth_string
from tasks.adapters.host.files import create_whole, keep_copy, make_directory, write_atomically
from tasks.adapters.host.outside_files import SETTINGS, read_outside
from tasks.adapters.host.settings_file import SYSTEM_SETTINGS, load_settings, own_settings
from tasks.adapters.host.state import STATE_VARIABLE, SYSTEM_STATE_DIRECTORY
from tasks.adapters.stack.stacks_here import look_at, stacks_here
from tasks.core.errors import BackupError
from tasks.core.policy.settings import parse_settings
from tasks.core.stack.first_settings import EXAMPLE_REPOSITORY, UnitPaths, first_settings, unit_texts

HERE = Path(__file__).parent
SYSTEM_UNITS = Path("/etc/systemd/system")
ABOUT_PASSWORD = "# USER:PASSWORD of Prefect's UI and API, for the units of server and worker, `serve` and `deploy`. Anyone who has it can restore and remove backups.\n"


@dataclass(frozen=True, slots=True)
class Begun:
    """What `init` wrote, what it left as it stood, what it kept of the former, and what it has to say."""

    settings: Path
    units: Path
    written: tuple[Path, ...]
    left: tuple[Path, ...]
    kept: tuple[Path, ...]
    installations: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Say what was done and what to do next."""
        lines = [f"wrote {path}" for path in self.written]
        lines += [f"kept the former file as {path}" for path in self.kept]
        lines += [f"left as it is: {path} (--force writes it anew, and keeps a copy)" for path in self.left]
        lines += [f"note: {note}" for note in self.notes]
        named = f" --settings {self.settings}" if self.settings != SYSTEM_SETTINGS else ""
        first = self.installations[0] if self.installations else "main"
        lines += [
            "",
            "Next:",
            f"1. Read {self.settings}, and correct it: " + ("where the backups go, above all." if self.installations else "no Mail Archiver was found here."),
            f"2. mailarchiver-backup doctor --installation {first}{named}",
            f"3. mailarchiver-backup backup auto --installation {first}{named}",
        ]  # fmt: skip
        units = (
            "mailarchiver-backup-recover.timer mailarchiver-backup-server.service mailarchiver-backup-worker.service"
        )
        watches = " ".join(f"mailarchiver-backup-watch@{name}.timer" for name in self.installations or ("main",))
        copy = f"cp {self.units}/* {SYSTEM_UNITS}/ && " if self.units != SYSTEM_UNITS else ""
        lines += [
            f"4. As root: {copy}systemctl daemon-reload && systemctl enable --now {units} {watches}",
            f"5. Where server and worker run: PREFECT_API_URL=http://127.0.0.1:4200/api mailarchiver-backup deploy{named}",
            f"6. Open http://127.0.0.1:4200: its password is in {self.settings.with_name(FILE_BESIDE_SETTINGS)}",
        ]
        return "\n".join(lines)


def default_settings() -> Path:
    """Give where settings go: the system's place for root, else the user's own."""
    return SYSTEM_SETTINGS if os.geteuid() == 0 else own_settings()


def default_units(settings: Path) -> Path:
    """Give where units go: where systemd reads them for root, else beside the settings, to be copied."""
    return SYSTEM_UNITS if os.geteuid() == 0 and SYSTEM_UNITS.is_dir() else settings.parent / "systemd"


def init(settings: Path, units: Path, repository: Path | None, directories: Sequence[Path], *, force: bool) -> Begun:
    """Look at the machine's stacks (or at these directories alone) and write settings and units for them.

    The settings are 0600. A file that stands with another content stays, unless `force`: then a copy of it is kept beside it.
    """
    seen = look_at([(each, None) for each in directories]) if directories else stacks_here()
    text = first_settings(
        (HERE / "settings.example.yaml").read_text(), seen.stacks, repository or Path(EXAMPLE_REPOSITORY), seen.notes
    )
    parsed = parse_settings(yaml.safe_load(text), source=f"what was to be {settings}")
    templates = {path.name: path.read_text() for path in sorted((HERE / "systemd").iterdir())}
    # The directory of the environment's own programs: `resolve` would follow its Python to the one it was made from.
    state = Path(os.environ.get(STATE_VARIABLE) or SYSTEM_STATE_DIRECTORY)
    paths = UnitPaths(Path(os.path.abspath(sys.executable)).parent, settings, state)
    wanted = {settings: (text, 0o600)}
    password = settings.with_name(FILE_BESIDE_SETTINGS)
    wanted |= {units / name: (unit, 0o644) for name, unit in unit_texts(templates, paths).items()}

    written, left, kept = [], [], []
    for place in (settings.parent, units):
        try:
            make_directory(place)
        except OSError as error:
            raise BackupError(
                f"{place} cannot be made: {error.strerror}", hint="run it as root, or name other places: see --help"
            ) from error
    # Not among the wanted: a password that stands is never another's to write anew.
    if create_whole(password, f"{ABOUT_PASSWORD}{AUTH_VARIABLE}={random_auth_string()}\n".encode(), 0o600):
        written.append(password)
    for path, (content, mode) in wanted.items():
        if create_whole(path, content.encode(), mode):
            written.append(path)
        elif path.is_file() and read_outside(path, SETTINGS)[0] == content.encode():
            continue
        elif not force:
            left.append(path)
        else:
            kept.append(keep_copy(path, path.with_name(f"{path.name}.former")))
            write_atomically(path, content.encode(), mode)
            written.append(path)
    notes = list(seen.notes)
    if os.geteuid() != 0:
        notes.append(
            f"the units run as root, who reads settings of its own alone: chown root {settings} before they start"
        )
    names = tuple(parsed.installations) if seen.stacks else ()
    if settings in left:
        names = tuple(load_settings(settings).installations)
    return Begun(settings, units, tuple(written), tuple(left), tuple(kept), names, tuple(notes))
