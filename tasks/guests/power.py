"""The switch of a guest, whatever kind it is: its state, a wish to shut down, the plug, the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tasks.adapters.guests import libvirt, lxc
from tasks.core.guests.former_state import Seen


class Power(Protocol):
    """What a loan needs to know and do of a guest; `kind` and `body` are what stands in its journal."""

    @property
    def kind(self) -> str: ...

    @property
    def body(self) -> dict[str, str]: ...

    def now(self) -> tuple[Seen, str]:
        """Give its state, and the word that its own programs have for it."""

    def ask_to_stop(self) -> None:
        """Ask it to shut down, and do not wait."""

    def cut(self) -> None:
        """End it at once."""

    def start(self) -> None:
        """Start it."""


@dataclass(frozen=True, slots=True)
class ContainerPower:
    """A container of LXC."""

    place: Path
    name: str
    kind: str = "lxc-container"

    def __str__(self) -> str:
        """Name it."""
        return f"the container {self.name}"

    @property
    def body(self) -> dict[str, str]:
        """Give what finds it again."""
        return {"place": str(self.place), "name": self.name}

    def now(self) -> tuple[Seen, str]:
        """Give its state, and LXC's word for it."""
        return lxc.container_now(self.place, self.name)

    def ask_to_stop(self) -> None:
        """Send it its halt signal."""
        lxc.ask_to_stop(self.place, self.name)

    def cut(self) -> None:
        """End everything in it."""
        lxc.cut_power(self.place, self.name)

    def start(self) -> None:
        """Start it."""
        lxc.start(self.place, self.name)


@dataclass(frozen=True, slots=True)
class MachinePower:
    """A virtual machine of libvirt."""

    uri: str
    name: str
    kind: str = "vm-domain"

    def __str__(self) -> str:
        """Name it."""
        return f"the virtual machine {self.name}"

    @property
    def body(self) -> dict[str, str]:
        """Give what finds it again."""
        return {"uri": self.uri, "name": self.name}

    def now(self) -> tuple[Seen, str]:
        """Give its state, and libvirt's word for it."""
        facts = libvirt.domain_now(self.uri, self.name)
        return facts.seen, facts.word

    def ask_to_stop(self) -> None:
        """Press its power button."""
        libvirt.act(self.uri, "shutdown", self.name)

    def cut(self) -> None:
        """Pull its plug."""
        libvirt.act(self.uri, "destroy", self.name)

    def start(self) -> None:
        """Start it."""
        libvirt.act(self.uri, "start", self.name)


def power_of(kind: str, body: Mapping[str, Any]) -> Power:
    """Give the switch of the guest that a journal tells of."""
    if kind == "vm-domain":
        return MachinePower(str(body["uri"]), str(body["name"]))
    return ContainerPower(Path(body["place"]), str(body["name"]))
