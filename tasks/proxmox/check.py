"""What stands in the way of guests' backups, looked at beforehand; nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.adapters.proxmox.session import token_of
from tasks.core.errors import BackupError
from tasks.core.policy.proxmox_settings import STOP_REASONS
from tasks.core.units import size_text
from tasks.proxmox.backup_guest import look_at_guest
from tasks.proxmox.trial import choose_copy
from tasks.run.config import InstallationConfig


@dataclass(frozen=True, slots=True)
class Checked:
    """What is seen of the guests: a line for each that is fit, what stands in the way with a hint, and what is known to be weaker."""

    lines: tuple[str, ...]
    told: tuple[dict[str, Any], ...]
    obstacles: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]


def check_proxmox(config: InstallationConfig) -> Checked:
    """Look whether each guest of the settings could be backed up now, and whether every token is fit."""
    wanted = config.settings.proxmox
    if wanted is None:
        return Checked((), (), (), ())
    lines, told, obstacles, notes = [], [], [], []
    for vmid in wanted.guests:
        try:
            fit = look_at_guest.fn(config, vmid)
        except BackupError as error:
            obstacles.append((error.message, error.hint))
            continue
        newest = f"newest backup there {fit.copies[0].at:%Y-%m-%d %H:%M} UTC" if fit.copies else "no backup there yet"
        lines.append(
            f"{fit.guest} on {fit.guest.node}: {fit.former}, {size_text(fit.bytes)}; storage {wanted.storage}, {newest}"
        )
        told.append(
            {
                "guest": vmid, "name": fit.guest.name, "node": fit.guest.node, "state": fit.former, "bytes": fit.bytes,
                "newest": fit.copies[0].at.isoformat() if fit.copies else None,
            }
        )  # fmt: skip
        if wanted.verification is not None:
            try:
                chosen = choose_copy.fn(config, vmid)
            except BackupError as error:
                obstacles.append((error.message, error.hint))
            else:
                lines.append(
                    f"{fit.guest}: {chosen.copy.name} can be restored as a test to {wanted.verification.storage}"
                )
    for server in wanted.backup_servers:
        try:
            token_of(server)
        except BackupError as error:
            obstacles.append((error.message, error.hint))
    if wanted.mode != "stop":
        notes.append(
            (f"guests are backed up in mode {wanted.mode}", f"the guide asks for stop: {'; '.join(STOP_REASONS)}")
        )
    return Checked(tuple(lines), tuple(told), tuple(dict.fromkeys(obstacles)), tuple(notes))
