"""Entries come in order, whatever of their contents is read."""

from __future__ import annotations

import io
import tarfile

import pytest

from tasks.core.archive.tar_reader import Limits, TarStream

CONTENTS = {
    "top/empty": b"",
    "top/short": b"a" * 700,
    "top/block": b"b" * 1024,
    "top/long": b"c" * 100_000,
    "top/last": b"d",
}


def packed() -> bytes:
    """Pack the contents with Python's own tar."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in CONTENTS.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return target.getvalue()


@pytest.mark.parametrize("chunk_bytes", [100, 512, 1 << 20])
def test_content_that_nobody_reads_is_passed_over(chunk_bytes: int) -> None:
    """All of it, the beginning alone, or nothing: the next entry is found all the same."""
    text = packed()
    for wanted in CONTENTS:
        stream = TarStream((text[at : at + chunk_bytes] for at in range(0, len(text), chunk_bytes)), Limits())
        names = []
        for entry in stream.entries():
            names.append(entry.name)
            if entry.name == wanted:
                assert b"".join(stream.content()) == CONTENTS[wanted]
            elif entry.name == "top/long":
                assert next(stream.content())
        assert names == list(CONTENTS)
