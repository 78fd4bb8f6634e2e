"""The list of a guest's files: what each of them is but its content, so that a restore can be compared with what was backed up."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence

NAMED = 3


def entry_line(
    path: bytes,
    *,
    mode: int,
    owner: int,
    group: int,
    size: int,
    moment_ns: int,
    more: bytes = b"",
    attributes: Mapping[str, bytes] | None = None,
    first: bytes = b"",
) -> bytes:
    """Write one file's line.

    `more` is a link's target or a device's numbers, `attributes` its extended attributes (ACLs and capabilities among
    them), `first` another path of the same file, where it has several.

    >>> entry_line(b"./a b", mode=0o100644, owner=0, group=5, size=3, moment_ns=1)
    b'./a b -rw-r--r-- 0 5 3 1\\n'
    """
    words = [
        _quoted(path), stat.filemode(mode).encode(), b"%d" % owner, b"%d" % group,
        b"%d" % (size if stat.S_ISREG(mode) else 0), b"%d" % moment_ns,
    ]  # fmt: skip
    words += [b"-> " + _quoted(more)] if more else []
    words += [b"= " + _quoted(first)] if first else []
    words += [
        name.encode(errors="surrogateescape") + b"=" + value.hex().encode()
        for name, value in sorted((attributes or {}).items())
    ]
    return b" ".join(words) + b"\n"


def differences(before: Sequence[bytes], after: Sequence[bytes]) -> str:
    """Tell in a sentence how two lists differ; "" where they are equal.

    >>> differences([b"a 1", b"b"], [b"a 2", b"b"])
    'in the backup: a 1; now: a 2'
    """
    had, has = set(before), set(after)
    missing, extra = (
        [each for each in before if each not in had & has],
        [each for each in after if each not in had & has],
    )
    if not missing and not extra:
        return "" if len(before) == len(after) else "a file stands in it twice"
    told = [
        f"{word}: {', '.join(each.decode(errors='replace').strip() for each in found[:NAMED])}{', ...' if len(found) > NAMED else ''}"
        for word, found in (("in the backup", missing), ("now", extra))
        if found
    ]
    return "; ".join(told)


def _quoted(path: bytes) -> bytes:
    """Keep a name with line breaks on its line."""
    return path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
