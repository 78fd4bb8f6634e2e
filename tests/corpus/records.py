"""More than sixty bad records: what may lie beside an archive."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any]], None]
VERIFIED = {
    "verdict": "verified", "at": "2026-03-01T03:00:00Z", "archive_sha256": "0" * 64, "rows": 1, "tables": 1, "attachments": 0,
    "differences": [], "restore_seconds": 1.0, "seconds": 1.0,
}  # fmt: skip
NAN, INFINITE = float("nan"), float("inf")
# Dotted places in a record, and what is put there.
VALUES: dict[str, tuple[object, ...]] = {
    "file": (None, 1, [], "x" * 5000),
    "bytes": (-1, 2**63, 10**30, 1.5, "many", None, NAN),
    "sha256": (None, 1, "0" * 65),
    "seconds": (NAN, INFINITE, -INFINITE, 1e308, -1, "long", None),
    "manifest": (None, [], {}, "text"),
    "manifest.created_at": ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-03-01T02:00:05", 1e308, NAN, None, "yesterday", "2600-01-01T00:00:00Z"),
    "manifest.name": (None, "x" * 2000),
    "manifest.installation": (None, {}, "x" * (1 << 20)),
    "manifest.project": ("\ud800",),
    "manifest.version": (10**12, -(10**12), None),
    "manifest.method": ("evil", None),
    "manifest.members": (None, {}, [1] * 1000, [{"name": "a", "bytes": -1, "sha256": ""}], [{"name": "x" * 2000, "bytes": 1, "sha256": ""}]),
    "manifest.downtime_seconds": (NAN, INFINITE, -1),
    "manifest.warnings": ("text", ["w" * 100_000], [1]),
    "manifest.database.size_bytes": (-1, 10**30, INFINITE),
    "manifest.database.server_major": (10**12, None),
    "verification": ([], {}, {**VERIFIED, "rows": -1}, {**VERIFIED, "seconds": NAN}, {**VERIFIED, "restore_seconds": 1e308}, {**VERIFIED, "at": "0001-01-01T00:00:00Z"}, {**VERIFIED, "verdict": "perfect"}, {**VERIFIED, "data_age_seconds": INFINITE}, {**VERIFIED, "differences": ["d" * 100_000]}),
    "content_accepted": ("perhaps", 7),
}  # fmt: skip
TEXTS: dict[str, bytes] = {
    "empty": b"", "spaces": b"  \n", "no JSON": b"evil", "list": b"[]", "number": b"1", "null": b"null", "text": b'"a"', "NUL": b"\0" * 100, "not UTF-8": b'{"file": "\xff\xfe"}',
    "UTF-16": '{"file": "a"}'.encode("utf-16"), "two objects": b"{}{}", "unfinished": b'{"file": "a', "digits": b'{"bytes": ' + b"9" * 10_000 + b"}", "digits of a fraction": b'{"seconds": 1.' + b"9" * 10_000 + b"}",
    "exponent": b'{"seconds": 1e999}', "depth": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "brackets": b'{"a":[' + b"[]," * 1_000_000 + b"[]]}", "braces": b'{"a":[' + b"{}," * 1_000_000 + b"{}]}",
    "ones": b'{"a":[' + b"1," * 2_000_000 + b"1]}", "keys": b'{"a":{' + b",".join(b'"%d":1' % each for each in range(300_000)) + b"}}", "quotes": b'"' * 3_000_000, "13 MB": b'{"file": "' + b"x" * (13 << 20) + b'"}',
    "the same key 200,000 times": b"{" + b'"a":1,' * 200_000 + b'"a":1}',
}  # fmt: skip


def _put(record: dict[str, Any], place: str, value: object) -> bytes:
    changed: Any = json.loads(json.dumps(record))
    inner = changed
    *above, last = place.split(".")
    for each in above:
        inner = inner[each]
    inner[last] = value
    return json.dumps(changed).encode()


BAD_RECORDS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    **{f"text: {name}": (lambda _, text=text: text) for name, text in TEXTS.items()},
    **{
        f"{place}: {number}": (lambda record, place=place, value=value: _put(record, place, value))
        for place, values in VALUES.items()
        for number, value in enumerate(values)
    },
}
