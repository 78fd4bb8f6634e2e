"""Our gzip is everybody's gzip, and everybody's gzip is read; what is cut or altered is refused."""

from __future__ import annotations

import gzip
import io
import random
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.adapters.archive.parallel_gzip import BATCH_BLOCKS, BLOCK_BYTES, DAMAGE, ParallelGzipWriter, inflated

BATCH_BYTES = BATCH_BLOCKS * BLOCK_BYTES
SIZES = [1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, BATCH_BYTES, 2 * BATCH_BYTES + 70_001]


def compressed(data: bytes, *, piece_bytes: int = 70_001) -> bytes:
    sink = io.BytesIO()
    writer = ParallelGzipWriter(sink, level=1, threads=2)
    for at in range(0, len(data), piece_bytes):
        writer.write(data[at : at + piece_bytes])
    writer.close()
    return sink.getvalue()


def read(packed: bytes) -> bytes:
    return b"".join(inflated(io.BytesIO(packed)))


def content(kind: str, size: int) -> bytes:
    if kind == "random":
        return random.Random(size).randbytes(size)
    return (b"A letter, and another one. %d " % size * (size // 20 + 1))[:size]


@pytest.mark.parametrize("kind", ["random", "text"])
@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_read_by_us_and_by_gzip(size: int, kind: str) -> None:
    data = content(kind, size)
    packed = compressed(data)

    assert read(packed) == data
    assert subprocess.run(["gzip", "-dc"], input=packed, capture_output=True, check=True).stdout == data
    assert len(packed) <= len(data) * 1.001 + 100
    assert len(packed) < len(data) / 3 or kind == "random" or size < 1000


@given(parts=st.lists(st.tuples(st.booleans(), st.integers(0, 300_000)), max_size=5), zeros=st.integers(0, 600))
@settings(max_examples=40, deadline=None)
def test_members_of_both_kinds_follow_each_other(parts: list[tuple[bool, int]], zeros: int) -> None:
    """A reserved header, or the guide's own gzip, has no length in it; zeros may follow the end."""
    packed, wanted = b"", b""
    for ours, size in parts:
        data = content("random" if size % 2 else "text", size)
        packed += compressed(data) if ours else gzip.compress(data, 1)
        wanted += data

    assert read(packed + bytes(zeros if parts else 0)) == wanted


def test_what_is_cut_or_altered_is_refused_or_the_same() -> None:
    """Flips in header fields that mean nothing (time, system) leave the content as it is; all others are noticed."""
    data = content("random", 3 * BLOCK_BYTES) + content("text", 3 * BLOCK_BYTES)
    packed = compressed(data)
    dice = random.Random(7)
    for _ in range(60):
        at = dice.randrange(1, len(packed))
        flipped = packed[:at] + bytes([packed[at] ^ (1 << dice.randrange(8))]) + packed[at + 1 :]
        for other in (packed[:at], flipped):
            try:
                found = read(other)
            except (EOFError, *DAMAGE):
                continue
            assert found == data or (other is not flipped and data.startswith(found) and len(found) % BLOCK_BYTES == 0)


def test_a_member_that_lies_about_its_length_is_refused() -> None:
    packed = bytearray(compressed(content("random", BLOCK_BYTES)))
    for length in (0, 27, 100, len(packed) - 1, len(packed) + 1, 1 << 31):
        packed[16:20] = length.to_bytes(4, "little")
        with pytest.raises((EOFError, *DAMAGE)):
            read(bytes(packed))


def test_a_member_that_swells_beyond_its_block_is_refused() -> None:
    """Nobody can make us hold more than a block for a member."""
    bomb = bytearray(compressed(b"x"))
    swollen = gzip.compress(bytes(20 * BLOCK_BYTES))[10:]
    head = bytes(bomb[:16]) + (20 + len(swollen)).to_bytes(4, "little")
    with pytest.raises(DAMAGE):
        read(head + swollen)


def test_an_error_of_the_file_reaches_the_writer() -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    writer = ParallelGzipWriter(Full(), level=1, threads=2)

    def write_much() -> None:
        for _ in range(20):
            writer.write(bytes(BATCH_BYTES))

    with pytest.raises(OSError, match="No space"):
        write_much()
    with pytest.raises(OSError, match="No space"):
        writer.close()  # what was still being compressed has nowhere to go either
