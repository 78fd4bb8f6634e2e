"""What stands in the way of backups of this host's guests, looked at beforehand; nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.core.errors import BackupError
from tasks.core.units import size_text
from tasks.guests.back_up_container import look_at_container
from tasks.guests.back_up_machine import look_at_machine
from tasks.run.config import InstallationConfig


@dataclass(frozen=True, slots=True)
class Checked:
    """What is seen of the guests: a line for each that is fit, the same as JSON, and what stands in the way, with a hint."""

    lines: tuple[str, ...] = ()
    told: tuple[dict[str, Any], ...] = ()
    obstacles: tuple[tuple[str, str], ...] = ()


def check_guests(config: InstallationConfig) -> Checked:
    """Look whether each guest of the settings could be backed up now."""
    lines: list[str] = []
    told: list[dict[str, Any]] = []
    obstacles: list[tuple[str, str]] = []
    for name in config.settings.lxc.containers if config.settings.lxc else ():
        try:
            fit = look_at_container.fn(config, name)
        except BackupError as error:
            obstacles.append((error.message, error.hint))
            continue
        without = f"; not included: {', '.join(fit.left_out)}" if fit.left_out else ""
        lines.append(f"container {name} in {fit.place}: {fit.former}, {size_text(fit.bytes)}{without}")
        told.append({"guest": f"lxc {name}", "state": fit.former, "bytes": fit.bytes, "left_out": list(fit.left_out)})
    for name in config.settings.vm.domains if config.settings.vm else ():
        try:
            machine = look_at_machine.fn(config, name)
        except BackupError as error:
            obstacles.append((error.message, error.hint))
            continue
        without = f"; not included: {', '.join(machine.left_out)}" if machine.left_out else ""
        lines.append(
            f"virtual machine {name}: {machine.former}, {len(machine.disks)} disks, {size_text(machine.bytes)}{without}"
        )
        told.append(
            {"guest": f"vm {name}", "state": machine.former, "bytes": machine.bytes, "left_out": list(machine.left_out)}
        )
    return Checked(tuple(lines), tuple(told), tuple(dict.fromkeys(obstacles)))
