"""What tests of copies share: an installation with targets, nights, and the flow as the command runs it."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.copy_backups import copy_backups
from tasks.adapters.copies.target_state import read_target_state
from tasks.core.archive.manifest import Record
from tasks.core.copies.state import SentPart
from tasks.core.policy.settings import CopyTarget
from tasks.oversight.copies import CopyRun
from tasks.run.config import InstallationConfig
from tasks.run.context import given_configs
from tests.integration.archives import DUMP, back_up, installation_in
from tests.targets import Server, write_config

MIB = 2**20
NOISE = random.Random(5).randbytes(5 * MIB // 2)


def copying_to(place: Path, *remotes: str, sections: dict[str, dict[str, str]], **changes: Any) -> InstallationConfig:
    """Give an installation that copies to these remotes, by the names a, b, ..., in parts of 1 MiB."""
    config = installation_in(place)
    targets = tuple(
        CopyTarget.model_validate({"name": "abc"[number], "remote": remote, "part_bytes": MIB} | changes)
        for number, remote in enumerate(remotes)
    )
    wanted = {"copies": targets, "rclone_config": write_config(place / "rclone.conf", sections)}
    return replace(config, settings=config.settings.model_copy(update=wanted))


def copy(config: InstallationConfig, target: str = "", **options: Any) -> list[CopyRun]:
    """Copy as the command does; one run for each target."""
    with given_configs({config.id: config}):
        return list(copy_backups.fn(config.id, target, **options))


def night(
    config: InstallationConfig,
    days_ago: float = 0,
    *,
    large: bool = False,
    verified: bool = True,
    recipients: tuple[str, ...] = (),
) -> Record:
    """Make a signed backup of so many days ago: of a few kilobytes, or of three parts."""
    at = (datetime.now(UTC) - timedelta(days=days_ago)).replace(microsecond=0)
    return back_up(config, at, verified=verified, dump=NOISE if large else DUMP, recipients=recipients)


def arrived(record: Record, target: str = "a") -> dict[str, SentPart]:
    """Give the parts of a backup that are known to have arrived."""
    entry = read_target_state("main", target).copies.get(record.manifest.name)
    return entry.parts if entry is not None else {}


def sending(config: InstallationConfig, name: str = "") -> list[int]:
    """Find the processes of rclone that send a file to this installation's targets, any file or the one of this name."""
    words = [b"rclone", b"rcat", str(config.settings.rclone_config).encode(), name.encode()]
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (each / "cmdline").read_bytes()
            if all(word in line for word in words):
                found.append(int(each.name))
    return found


def at(server: Server) -> dict[str, bytes]:
    """Read what a server has in the bucket."""
    return {each.name: each.read_bytes() for each in (server.files / "bucket").rglob("*") if each.is_file()}
