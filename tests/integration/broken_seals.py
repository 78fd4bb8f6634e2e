"""Ways to break an encrypted archive; used by a test with a few of each, and by a campaign with a thousand."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tasks.core.archive.tar_writer import BLOCK_BYTES

Entries = list[tuple[bytes, bytes]]


def entries_of(path: Path) -> Entries:
    """Split the outer tar into its entries (header, content with padding), without its end."""
    data, at, found = path.read_bytes(), 0, []
    while data[at : at + BLOCK_BYTES].strip(b"\0"):
        size = int(data[at + 124 : at + 135], 8)
        ends = at + BLOCK_BYTES + -(-size // BLOCK_BYTES) * BLOCK_BYTES
        found.append((data[at : at + BLOCK_BYTES], data[at + BLOCK_BYTES : ends]))
        at = ends
    return found


def _joined(entries: Entries) -> bytes:
    return b"".join(header + content for header, content in entries) + bytes(2 * BLOCK_BYTES)


def _flip(good: Path, _: Path, chance: random.Random) -> bytes:
    data = bytearray(good.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _cut(good: Path, _: Path, chance: random.Random) -> bytes:
    data = good.read_bytes()
    return data[: chance.choice([len(data) - 1, len(data) - BLOCK_BYTES, chance.randrange(len(data))])]


def _parts(entries: Entries) -> list[int]:
    return [number for number, (header, _) in enumerate(entries) if b".age\0" in header[:101]]


def _swapped(good: Path, _: Path, chance: random.Random) -> bytes:
    """Swap two parts' contents together with their sizes, each under the other's name."""
    entries = entries_of(good)
    one, two = chance.sample(_parts(entries), 2)
    if chance.random() < 0.5:  # as whole entries: out of order
        entries[one], entries[two] = entries[two], entries[one]
    else:
        entries[one], entries[two] = _renamed(entries[two], entries[one]), _renamed(entries[one], entries[two])
    return _joined(entries)


def _of_another(good: Path, other: Path, chance: random.Random) -> bytes:
    """Put a part of another archive, encrypted to the same keys, in the place of ours."""
    entries, others = entries_of(good), entries_of(other)
    one = chance.choice(_parts(entries))
    entries[one] = _renamed(others[one], entries[one])
    return _joined(entries)


def _missing(good: Path, _: Path, chance: random.Random) -> bytes:
    entries = entries_of(good)
    one = chance.choice(_parts(entries))
    del entries[one]
    if chance.random() < 0.5:  # and the others move up, under its name and those after it
        entries = [
            _named(each, number) if number != index else each
            for index, (each, number) in enumerate(zip(entries, _numbers(entries), strict=True))
        ]
    return _joined(entries)


def _doubled(good: Path, _: Path, chance: random.Random) -> bytes:
    entries = entries_of(good)
    one = chance.choice(_parts(entries))
    return _joined([*entries[: one + 1], entries[one], *entries[one + 1 :]])


def _appended(good: Path, other: Path, chance: random.Random) -> bytes:
    extra = chance.choice([b"\0", b"x", bytes(BLOCK_BYTES), other.read_bytes()])
    return good.read_bytes() + extra


def _numbers(entries: Entries) -> list[int]:
    numbers, number = [], 0
    for header, _ in entries:
        number += b".age\0" in header[:101]
        numbers.append(number)
    return numbers


def _named(entry: tuple[bytes, bytes], number: int) -> tuple[bytes, bytes]:
    header, content = entry
    name = header[:100].split(b"\0")[0]
    directory, _, rest = name.rpartition(b"/")
    return _header(header, directory + b"/%06d" % number + rest[6:]), content


def _renamed(entry: tuple[bytes, bytes], like: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    return _header(entry[0], like[0][:100].split(b"\0")[0], like[0][136:148]), entry[1]


def _header(header: bytes, name: bytes, moment: bytes = b"") -> bytes:
    block = bytearray(header)
    block[:100] = name.ljust(100, b"\0")
    if moment:
        block[136:148] = moment
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 0x20 + sum(block[156:BLOCK_BYTES]))
    return bytes(block)


BREAKS: dict[str, Callable[[Path, Path, random.Random], bytes]] = {
    "flipped": _flip,
    "cut": _cut,
    "swapped": _swapped,
    "of another": _of_another,
    "missing": _missing,
    "doubled": _doubled,
    "appended": _appended,
}


def break_one(kind: str, good: Path, other: Path, chance: random.Random) -> bytes:
    """Give the bytes of a good archive, broken in one way; never the good bytes themselves."""
    while (broken := BREAKS[kind](good, other, chance)) == good.read_bytes():
        pass
    return broken
