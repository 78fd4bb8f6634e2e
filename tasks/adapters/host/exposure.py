"""What of this machine is open to others: files that every user may read, and addresses at which a program of ours listens."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_LISTENS = "0A"
_PROC = Path("/proc")


def readable_by_all(path: Path) -> bool:
    """Tell whether every user of this machine may read a file: its own mode says so, and every directory above it lets them in."""
    try:
        place = path.resolve(strict=True)
        if not place.stat().st_mode & stat.S_IROTH:
            return False
        return all(each.stat().st_mode & stat.S_IXOTH for each in place.parents)
    except (OSError, RuntimeError):
        return False


def listening_addresses(word: str) -> list[str]:
    """Give the addresses at which programs with this word in their command line listen (TCP), in our own network."""
    ours = _network("self")
    found: set[str] = set()
    for process in _PROC.iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            if word.encode() in command and _network(process.name) == ours:
                found |= set(_addresses_of(process))
    return sorted(found)


def _network(process: str) -> str:
    return os.readlink(_PROC / process / "ns" / "net")


def _addresses_of(process: Path) -> Iterator[str]:
    sockets = set()
    for each in (process / "fd").iterdir():
        with suppress(OSError):
            name = os.readlink(each)
            if name.startswith("socket:["):
                sockets.add(name.removeprefix("socket:[").removesuffix("]"))
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (process / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if len(fields) > 9 and fields[3] == _LISTENS and fields[9] in sockets:
                    yield _address(fields[1])


def _address(text: str) -> str:
    """Read an address as the kernel lists it: 32-bit words in the byte order of the machine, which is a little-endian one.

    >>> _address("0100007F:1068"), _address("00000000000000000000000000000000:1068")
    ('127.0.0.1:4200', '[::]:4200')
    """
    host, _, port = text.partition(":")
    raw = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
    if len(raw) == 4:
        return f"{IPv4Address(raw)}:{int(port, 16)}"
    return f"[{IPv6Address(raw)}]:{int(port, 16)}"
