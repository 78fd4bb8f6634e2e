"""More than a hundred bad archives: each a way to harm anyone who reads or extracts it."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from tasks.core.archive.tar_writer import END_BLOCKS, checksum_of, padding, tar_header
from tests.integration.archives import DUMP, NAME

Change = Callable[[dict[str, Any]], None]


def entry(name: str, data: bytes = b"x", **fields: Any) -> bytes:
    """Give a file's header and content."""
    return tar_header(name, size=len(data), **fields) + data + padding(len(data))


def patched(block: bytes, at: int, field: bytes) -> bytes:
    """Put a field into a header, and mend the checksum."""
    changed = bytearray(block)
    changed[at : at + len(field)] = field
    changed[148:156] = b"%06o\0 " % checksum_of(bytes(changed))
    return bytes(changed)


def typed(flag: bytes, content: bytes = b"", *, name: str = f"{NAME}/evil", link: str = "") -> bytes:
    """Give an entry of any type."""
    return patched(tar_header(name, size=len(content), link=link), 156, flag) + content + padding(len(content))


def pax(*records: bytes, then: bytes = b"", flag: bytes = b"x") -> bytes:
    """Give an extended header, and what it is of."""
    content = b""
    for record in records:
        length = len(record) + 2
        while length != len(b"%d %s\n" % (length, record)):
            length = len(b"%d %s\n" % (length, record))
        content += b"%d %s\n" % (length, record)
    return typed(flag, content, name="pax") + (then or entry(f"{NAME}/innocent"))


def long_name(name: bytes, flag: bytes = b"L") -> bytes:
    """Give a file with a name as GNU tar writes long ones."""
    return typed(flag, name + b"\0", name="././@LongLink") + entry(f"{NAME}/short")


def manifest_bytes(change: Change = lambda _: None) -> bytes:
    """Give the manifest of the good archive, changed."""
    content: dict[str, Any] = {
        "version": 1, "name": NAME, "method": "hot", "format": "guide", "installation": "main", "project": "mail",
        "created_at": "2026-03-01T02:00:05Z", "images": [],
        "database": {
            "name": "MailArchiver", "owner": "mailuser", "encoding": "UTF8", "collation": "C", "character_type": "C",
            "server_version": "17.2", "server_major": 17,
        },
        "members": [
            {"name": "database.sql", "bytes": len(DUMP), "sha256": hashlib.sha256(DUMP).hexdigest()},
            {"name": "docker-compose.yml", "bytes": 13, "sha256": hashlib.sha256(b"services: {}\n").hexdigest()},
        ],
    }  # fmt: skip
    change(content)
    return json.dumps(content).encode()


BODY = (
    tar_header(NAME, kind="directory")
    + entry(f"{NAME}/database.sql", DUMP)
    + entry(f"{NAME}/docker-compose.yml", b"services: {}\n")
)
GOOD = BODY + entry(f"{NAME}/manifest.json", manifest_bytes())


def _with_manifest(text: bytes) -> bytes:
    return BODY + entry(f"{NAME}/manifest.json", text) + END_BLOCKS


def _set(*path: str | int, to: object) -> Change:
    def change(content: Any) -> None:
        for each in path[:-1]:
            content = content[each]
        content[path[-1]] = to

    return change


NAMES = {
    "absolute": "/etc/cron.d/evil", "absolute twice": "//etc/evil", "up": "../evil", "up from the top": f"{NAME}/../evil",
    "far up": f"{NAME}/" + "../" * 12 + "etc/passwd", "up at the end": f"{NAME}/a/..", "dot": f"{NAME}/./evil", "dot at the end": f"{NAME}/.",
    "empty part": f"{NAME}//evil", "only slashes": "///", "dot dot alone": "..", "dot alone": ".", "newline": f"{NAME}/e\nvil", "bell": f"{NAME}/e\avil",
    "escape": f"{NAME}/e\x1b]0;evil\a", "tab": f"{NAME}/e\tvil", "delete": f"{NAME}/e\x7fvil", "carriage return": f"{NAME}/e\rvil",
    "other top": "elsewhere/file", "file at the root": "evil", "top's case twin": f"{NAME.upper()}/file", "deep": f"{NAME}/" + "d/" * 40 + "f",
    "below a file": f"{NAME}/database.sql/evil", "data below the dump": f"{NAME}/database.sql/base/1",
}  # fmt: skip
# Names that a directory may hold, but that the manifest does not list.
TWINS = {
    "case twin": "Database.SQL", "case twin of the manifest": "Manifest.json", "composed twin": "docker-compos\u00e9.yml",
    "decomposed twin": "docker-compose\u0301.yml", "width twin": "\uff44atabase.sql", "dotless twin": "data\u0131base.sql", "Cyrillic twin": "d\u0430tabase.sql",
    "trailing space": "database.sql ", "trailing dot": "database.sql.", "no-break": "docker\u2011compose.yml", "zero width": "database\u200b.sql",
    "bidi": "\u202elqs.esabatad", "backslash": "..\\..\\evil", "drive": "C:evil", "device name": "NUL", "dash": "-rf", "home": "~root", "variable": "${HOME}",
    "command": "$(reboot)", "glob": "*", "long": "x" * 250, "C1": "\x9b2J", "line separator": "a\u2028b",
}  # fmt: skip
TYPES = {
    "hard link": typed(b"1", link=f"{NAME}/database.sql"), "hard link outside": typed(b"1", link="/etc/passwd"),
    "link": typed(b"2", link="/etc/passwd"), "link up": typed(b"2", link=".."), "link in the dump's place": typed(b"2", name=f"{NAME}/database.dump", link="/etc/shadow"),
    "link, then through it": typed(b"2", name=f"{NAME}/in", link="/tmp") + entry(f"{NAME}/in/evil"), "link as top": typed(b"2", name="top", link="/"),
    "character device": typed(b"3"), "block device": typed(b"4"), "FIFO": typed(b"6"), "sparse": typed(b"S"), "multi-volume": typed(b"M"),
    "volume's name": typed(b"V"), "dump directory": typed(b"D"), "old name": typed(b"N"), "Solaris header": typed(b"X"), "unknown": typed(b"Z"), "high": typed(b"\xff"),
    "directory with content": typed(b"5", bytes(512)), "long link": long_name(b"/etc/passwd", b"K"),
}  # fmt: skip
HEADERS = {
    "pax path up": pax(b"path=../../evil"), "pax path absolute": pax(b"path=/evil"), "pax path twice": pax(b"path=a", b"path=/evil"),
    "pax empties the size": pax(b"size=0"), "pax enlarges the size": pax(b"size=99999999"), "pax size negative": pax(b"size=-1"), "pax size in words": pax(b"size=many"),
    "pax size of 5,000 digits": pax(b"size=" + b"9" * 5000), "pax size in other digits": pax("size=\u0661".encode()),
    "pax sparse": pax(b"GNU.sparse.major=1"), "pax sparse name": pax(b"GNU.sparse.name=/evil"), "pax without length": typed(b"x", b"path=aaa"),
    "pax length zero": typed(b"x", b"0 path=a\n"), "pax length of itself": typed(b"x", b"2 "), "pax length beyond": typed(b"x", b"99 path=a\n"),
    "pax length in a letter": typed(b"x", "6 a=\u00e9\n".encode()), "pax not UTF-8": pax(b"path=\xff\xfe"), "pax of a megabyte": pax(b"comment=" + b"c" * (1 << 20)),
    "pax of many records": pax(*[b"a=b"] * 5000), "global of a megabyte": pax(b"comment=" + b"c" * (1 << 20), flag=b"g"), "pax at the end": typed(b"x", b"9 path=a\n"),
    "headers without end": typed(b"g", b"9 path=a\n") * 50, "names without end": typed(b"L", b"a\0") * 50, "name up": long_name(b"../../evil"),
    "name absolute": long_name(b"/evil"), "name not UTF-8": long_name(b"\xff\xfe"), "name of a megabyte": long_name(b"n" * (1 << 20)), "name with a NUL": long_name(f"{NAME}/a".encode() + b"\0/../../evil"),
    "size beyond the end": tar_header(f"{NAME}/long", size=10_000), "size 2^62": tar_header(f"{NAME}/huge", size=2**62), "size negative": patched(tar_header(f"{NAME}/x", size=0), 124, b"\xff" * 12),
    "size of 88 bits": patched(tar_header(f"{NAME}/x", size=0), 124, b"\x80" + b"\xff" * 11), "size with a sign": patched(tar_header(f"{NAME}/x", size=0), 124, b"-0000000001\0"),
    "size with an underscore": patched(tar_header(f"{NAME}/x", size=0), 124, b"0000000_001\0"), "size in words": patched(tar_header(f"{NAME}/x", size=0), 124, b"many\0"),
    "owner of 56 bits": patched(entry(f"{NAME}/x")[:512], 108, b"\x80" + b"\xff" * 7) + entry("")[512:], "group of 56 bits": patched(entry(f"{NAME}/x")[:512], 116, b"\x80" + b"\xff" * 7) + entry("")[512:],
    "nobody's nobody": patched(entry(f"{NAME}/x")[:512], 108, b"\x80\0\0\0\xff\xff\xff\xff") + entry("")[512:], "time of 88 bits": patched(entry(f"{NAME}/x")[:512], 136, b"\x80" + b"\xff" * 11) + entry("")[512:],
    "time negative": patched(entry(f"{NAME}/x")[:512], 136, b"\xff" * 12) + entry("")[512:], "wrong checksum": tar_header(f"{NAME}/evil").replace(b"000600", b"000777", 1),
    "checksum in words": tar_header(f"{NAME}/evil")[:148] + b"checksum" + tar_header(f"{NAME}/evil")[156:], "garbage": bytes(range(256)) * 2, "text": b"hello" * 200,
}  # fmt: skip
STRUCTURES = {
    "dump twice": entry(f"{NAME}/database.sql", DUMP), "dump twice by ./": entry(f"./{NAME}/database.sql", DUMP), "other dump of the name": entry(f"{NAME}/database.sql", b"evil"),
    "manifest twice": entry(f"{NAME}/manifest.json", b"{}"), "directory over the dump": tar_header(f"{NAME}/database.sql", kind="directory"),
    "file over a directory": tar_header(f"{NAME}/a", kind="directory") + entry(f"{NAME}/a"), "file over an implied directory": entry(f"{NAME}/a/b") + entry(f"{NAME}/a"),
    "two tops": entry("other/file"), "set-uid program": entry(f"{NAME}/su", b"#!", mode=0o4755), "after the end": END_BLOCKS + entry(f"{NAME}/late"),
    "a single end block": bytes(512) + entry(f"{NAME}/late"),
}  # fmt: skip
MANIFESTS: dict[str, bytes] = {
    "empty": b"", "no JSON": b"evil", "a list": b"[]", "a number": b"1", "not UTF-8": b'{"a": "\xff"}', "cut": manifest_bytes()[:-40], "nested": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "brackets": b'{"a":[' + b"[]," * 500_000 + b"[]]}", "5 MB": b'{"a":"' + b"x" * (5 << 20) + b'"}', "half a character": manifest_bytes(_set("project", to="\ud800")),
    **{name: manifest_bytes(change) for name, change in {
        "dump is larger": _set("members", 0, "bytes", to=len(DUMP) + 1), "dump is smaller": _set("members", 0, "bytes", to=1), "dump of another digest": _set("members", 0, "sha256", to="0" * 64),
        "dump of 2^63": _set("members", 0, "bytes", to=2**63), "dump of minus one": _set("members", 0, "bytes", to=-1), "no members": _set("members", to=[]),
        "a member too many": lambda each: each["members"].append({"name": "x", "bytes": 0, "sha256": ""}), "a member that leads out": lambda each: each["members"].append({"name": "../x", "bytes": 0, "sha256": ""}),
        "a member twice": lambda each: each["members"].append(dict(each["members"][0])), "a member twice, otherwise": lambda each: each["members"].insert(0, {"name": "database.sql", "bytes": 9, "sha256": "a"}),
        "members are no list": _set("members", to={}), "members of numbers": _set("members", to=[1, 2]), "other name": _set("name", to="mailarchiver-backup-20200101-000000"),
        "name leads out": _set("name", to="../../evil"), "name of an escape": _set("name", to="\x1b[2J"), "version 2^40": _set("version", to=2**40), "version of a newer program": _set("version", to=99),
        "version in words": _set("version", to="one"), "method": _set("method", to="evil"), "format": _set("format", to="evil"), "year 1": _set("created_at", to="0001-01-01T00:00:00+14:00"),
        "year 9999": _set("created_at", to="9999-12-31T23:59:59-12:00"), "no zone": _set("created_at", to="2026-03-01T02:00:05"), "a time of 1e308": _set("created_at", to=1e308),
        "NaN": _set("downtime_seconds", to=float("nan")), "infinite": _set("downtime_seconds", to=float("inf")), "negative": _set("downtime_seconds", to=-1), "no database": _set("database", to=None),
        "major of 2^40": _set("database", "server_major", to=2**40), "size of 10^30": _set("database", "size_bytes", to=10**30), "settings are no lists": _set("database", "settings", to={"": "work_mem=1"}),
        "grants are texts": _set("database", "grants", to=["all"]), "census of nothing": _set("census", to={}), "negative rows": _set("census", to={"tables": {"a": {"rows": -1, "digest": ""}}, "sequences": {}, "large_objects": {"rows": 0, "digest": ""}, "schema_objects": {}}),
    }.items()},
}  # fmt: skip


def _streams() -> Iterator[tuple[str, bytes]]:
    yield from ((f"name: {what}", GOOD + entry(name) + END_BLOCKS) for what, name in NAMES.items())
    yield from ((f"twin: {what}", GOOD + entry(f"{NAME}/{name}") + END_BLOCKS) for what, name in TWINS.items())
    yield from ((f"type: {what}", GOOD + evil + END_BLOCKS) for what, evil in TYPES.items())
    yield from ((f"header: {what}", GOOD + evil + END_BLOCKS) for what, evil in HEADERS.items())
    yield from ((f"structure: {what}", GOOD + evil + END_BLOCKS) for what, evil in STRUCTURES.items())
    yield from ((f"manifest: {what}", _with_manifest(text)) for what, text in MANIFESTS.items())
    yield "structure: nothing", END_BLOCKS
    yield "structure: no end", GOOD
    yield "structure: no dump", tar_header(NAME, kind="directory") + entry(f"{NAME}/notes") + END_BLOCKS
    yield (
        "structure: an empty dump",
        tar_header(NAME, kind="directory") + entry(f"{NAME}/database.sql", b"") + END_BLOCKS,
    )


def _bomb(members: Iterator[bytes]) -> tuple[str, bytes]:
    return ".tar.gz", gzip.compress(BODY + b"".join(members) + END_BLOCKS, 1)


def _many_members() -> tuple[str, bytes]:
    return _bomb(tar_header(f"{NAME}/{number}") for number in range(101_000))


def _many_directories() -> tuple[str, bytes]:
    deep = ("/".join([f"{number:05d}" + "x" * 24] * 30) for number in range(4000))
    return _bomb(entry(f"{NAME}/{each}") for each in deep)


def _large_manifest() -> tuple[str, bytes]:
    return ".tar.gz", gzip.compress(_with_manifest(b" " * (14 << 20)), 1)


def _packed() -> Iterator[tuple[str, str, bytes]]:
    whole = GOOD + END_BLOCKS
    gz, zst = gzip.compress(whole, 1), zstandard.ZstdCompressor(level=1).compress(whole)
    for length in (0, 1, 2, 10, 18, len(gz) // 2, len(gz) - 8, len(gz) - 1):
        yield f"cut: gzip after {length}", ".tar.gz", gz[:length]
    for length in (3, 4, 5, 9, len(zst) // 2, len(zst) - 1):
        yield f"cut: zstd after {length}", ".tar.zst", zst[:length]
    yield "packed: gzip with a tail", ".tar.gz", gz + b"evil"
    yield "packed: gzip, then another gzip", ".tar.gz", gz + gzip.compress(b"evil")
    yield "packed: zstd with a tail", ".tar.zst", zst + b"evil"
    yield "packed: gzip's digest is wrong", ".tar.gz", gz[:-8] + bytes(4) + gz[-4:]
    yield "packed: gzip's length is wrong", ".tar.gz", gz[:-4] + bytes(4)
    yield (
        "packed: a member that lies about its length",
        ".tar.gz",
        struct.pack("<4sIBBH2sHI", b"\x1f\x8b\x08\x04", 0, 0, 255, 8, b"mA", 4, 100) + gz[10:],
    )
    yield (
        "packed: a member of 4 GB",
        ".tar.gz",
        struct.pack("<4sIBBH2sHI", b"\x1f\x8b\x08\x04", 0, 0, 255, 8, b"mA", 4, 2**32 - 1) + gz[10:],
    )
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27)).compressobj()
    yield "packed: a window of 128 MB", ".tar.zst", wide.compress(whole) + wide.flush()
    yield "packed: zstd of another dictionary", ".tar.zst", b"\x28\xb5\x2f\xfd\x23\x01\x02\x03\x04" + bytes(40)
    yield "packed: no archive", ".tar.gz", b"PK\x03\x04" + bytes(100)
    yield "packed: not compressed", ".tar.gz", whole
    yield "packed: a bare dump", ".tar.gz", b"--\n-- PostgreSQL database dump\n--\n" + DUMP


BAD_ARCHIVES: dict[str, Callable[[], tuple[str, bytes]]] = {
    "bomb: 101,000 members": _many_members,
    "bomb: directories of directories": _many_directories,
    "bomb: a manifest of 14 MB": _large_manifest,
    **{name: (lambda stream=stream: (".tar.gz", gzip.compress(stream, 1))) for name, stream in _streams()},
    **{name: (lambda extension=extension, data=data: (extension, data)) for name, extension, data in _packed()},
}
