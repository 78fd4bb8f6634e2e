"""Feed every reader of foreign bytes with altered ones.

    python -m tests.campaigns.fuzz --seconds 600

takes valid inputs, bad ones of the corpus, and alters them: bits, pieces, numbers, lengths. Anything but an answer or
an error of ours is a find; so is a file outside, a case that takes longer than ten seconds, and more than 256 MB.
Prints figures as JSON, and how to see a find again; ends with 1 where there is one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import random
import re
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyrage
import zstandard

from tasks.adapters.archive.archive_source import record_path_of
from tasks.adapters.archive.identity_file import read_identities
from tasks.adapters.archive.open_keys import opening_with
from tasks.adapters.archive.reader import check_archive, check_while, recorded_archive
from tasks.adapters.archive.repository import list_backups
from tasks.adapters.archive.repository_marker import MARKER_NAME, repository_problem
from tasks.adapters.engine.compose import compose_files_in, files_named_in
from tasks.adapters.host.settings_file import load_settings
from tasks.core.archive.manifest import parse_manifest, parse_record, written
from tasks.core.archive.recipients import recipients_in
from tasks.core.archive.sealed_layout import Place, read_mark
from tasks.core.archive.segments import read_journal
from tasks.core.archive.tar_reader import Limits, TarStream
from tasks.core.archive.tar_writer import END_BLOCKS, checksum_of
from tasks.core.dump.census import CensusTaker
from tasks.core.dump.custom import read_custom_dump
from tasks.core.dump.foreign_dump import dumped_by_major, refuse_bare_dump
from tasks.core.dump.sql import read_sql_dump
from tasks.core.errors import BackupError
from tasks.core.policy.history import parse_history
from tasks.core.stack.pg_control import read_control
from tests.corpus.archives import BAD_ARCHIVES, GOOD, manifest_bytes
from tests.corpus.memory import peak_kib
from tests.corpus.records import BAD_RECORDS
from tests.integration.archives import NAME, make_archive

SECONDS_LIMIT = 10.0
KEY = pyrage.x25519.Identity.generate()
MEMORY_LIMIT_KIB = 256 * 1024
ROOM_BYTES = 1 << 30
DUMPS = Path(__file__).parents[1] / "unit" / "dumps"
SETTINGS = Path(__file__).parents[2] / "deployments" / "settings.example.yaml"
ODD = (
    b"", b"0", b"-1", b"1e999", b"NaN", b"Infinity", b"9" * 50, b"9" * 5000, b"null", b"[]", b"{}", b'"\\ud800"', b"../../evil", b"/etc/passwd", b"\x1b[2J", b"\0", b"\xff\xfe",
    b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-12:00", b"\x80" + b"\xff" * 11, "\u202e".encode(), b"!!python/object:os.system", b"*a", b"&a ", b"<<: ", b"[" * 2000,
)  # fmt: skip
_TOKEN = re.compile(rb"[0-9]+|\"[^\"]{0,60}\"|[a-z_]{3,}")


@dataclass(frozen=True)
class Target:
    """A reader: what it is fed with at first, and how."""

    name: str
    seeds: tuple[bytes, ...]
    feed: Callable[[bytes], object]


def altered(rng: random.Random, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """Alter bytes in one to five ways."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(out) + 1)
        way = rng.randrange(8)
        if way == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif way == 1:
            del out[at : at + rng.choice((1, 2, 16, 512, 5000))]
        elif way == 2:
            out[at:at] = rng.choice(ODD)
        elif way == 3:
            out[at:at] = out[at : at + rng.choice((1, 20, 512, 1024))] * rng.choice((1, 2, 50))
        elif way == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[at : at + rng.choice((0, 100, 512))] = other[start : start + rng.choice((10, 512, 4096))]
        elif way == 5 and (tokens := list(_TOKEN.finditer(bytes(out[:20_000])))):
            found = rng.choice(tokens)
            out[found.start() : found.end()] = rng.choice(ODD)
        elif way == 6:
            out = out[:at]
        elif way == 7:
            out[at : at + 4] = rng.randbytes(4)
        if len(out) > 1 << 20:
            out = out[: 1 << 20]
    return bytes(out)


def _mended(stream: bytes) -> bytes:
    """Mend the checksums of what could be headers, or no altered header would be read any further."""
    out = bytearray(stream)
    for at in range(0, len(out) - 511, 512):
        block = bytes(out[at : at + 512])
        if block[257:262] == b"ustar" or block[:20].startswith(NAME.encode()):
            out[at + 148 : at + 156] = b"%06o\0 " % checksum_of(block)
    return bytes(out)


def targets(place: Path) -> list[Target]:
    """Make the readers, which work below a directory."""
    good = make_archive(place / "good")
    encrypted = make_archive(place / "encrypted", recipients=(str(KEY.to_public()),)).path.read_bytes()
    inside = place / "inside"
    inside.mkdir()
    path = inside / f"{NAME}.tar.gz"
    record = json.loads(written(good.record))
    records = tuple(each for make in BAD_RECORDS.values() if len(each := make(record)) < 100_000)
    streams = tuple(
        gzip.decompress(data)
        for name, make in BAD_ARCHIVES.items()
        if name.split(":")[0] in ("header", "structure", "type", "name") and len(data := make()[1]) < 50_000
    )

    def archive(packed: bytes, extension: str = ".tar.gz") -> None:
        place = inside / f"{NAME}{extension}"
        place.write_bytes(packed)
        check_archive(place)

    def sealed(packed: bytes) -> None:
        with opening_with((str(KEY),)):
            archive(packed, ".tar.gz.age.tar")

    def identity(text: bytes) -> None:
        place = inside / "identity"
        place.write_bytes(text)
        place.chmod(0o600)
        read_identities(place)

    def extracted(stream: bytes) -> None:
        packed = gzip.compress(_mended(stream), 0)
        path.write_bytes(packed)
        about = {**record, "file": path.name, "bytes": len(packed), "manifest": json.loads(manifest_bytes())}
        record_path_of(path).write_text(json.dumps(about))
        described = recorded_archive(path)
        assert described is not None
        total = 0

        def take(entry: object, name: str, pieces: object) -> None:
            nonlocal total
            assert not name or not {"", ".", ".."} & set(name.split("/")), name
            total += sum(map(len, pieces))  # type: ignore[call-overload]

        try:
            check_while(described, take)
        finally:
            assert total < 200_000, f"{total} bytes would have been written"
            record_path_of(path).unlink()

    def sidecar(text: bytes) -> None:
        path.write_bytes(b"x")
        record_path_of(path).write_bytes(text)
        list_backups(inside)
        record_path_of(path).unlink()
        written(parse_record(text, source="it"))

    def settings(text: bytes) -> None:
        (inside / "settings.yaml").write_bytes(text)
        load_settings(inside / "settings.yaml")

    def marker(text: bytes) -> None:
        (inside / MARKER_NAME).write_bytes(text)
        repository_problem(inside)

    def compose(text: bytes) -> None:
        (inside / "docker-compose.yml").write_bytes(text)
        files_named_in(inside / "docker-compose.yml")

    def dot_env(text: bytes) -> None:
        (inside / ".env").write_bytes(text)
        compose_files_in(inside)

    def dump(text: bytes, *, custom: bool) -> None:
        taker = CensusTaker()
        chunks = (text[at : at + 4096] for at in range(0, len(text), 4096))
        for event in read_custom_dump(chunks) if custom else read_sql_dump(chunks):
            taker.see(event)  # type: ignore[arg-type]

    def head(text: bytes) -> None:
        dumped_by_major(text)
        refuse_bare_dump(text, "it")

    def tar(stream: bytes) -> None:
        mended = _mended(stream)
        for _ in TarStream((mended[at : at + 1000] for at in range(0, len(mended), 1000)), Limits()).entries():
            pass

    whole = GOOD + END_BLOCKS
    control = b"\0" * 8 + (1700).to_bytes(4, "little") + bytes(4) + (1).to_bytes(4, "little") + bytes(300)
    compose_text = (
        b"include: [a.yml, {path: [b.yml], env_file: c}]\nservices:\n  a: {extends: {file: d.yml, service: a}}\n"
    )
    journal = b'{"segment": "dump", "begins": 0}\n{"segment": "dump", "begins": 0, "ends": 9, "members": [["a", 1, "b"]], "directories": [], "parts": 0}\n'
    history = b'{"run":"hot backup","at":"2026-03-01T02:00:05Z","seconds":1.0,"outcome":"failed","message":"m"}\n'
    sql = tuple(each.read_bytes()[:60_000] for each in sorted(DUMPS.glob("*.sql")))
    custom = tuple(each.read_bytes()[:60_000] for each in sorted(DUMPS.glob("*.dump")))
    return [
        Target("encrypted archive", (encrypted,), sealed),
        Target("identity file", (f"# a key\n{KEY}\n".encode(), b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n"), identity),
        Target("recipients", (f"# ours\n{KEY.to_public()}\n".encode(),), lambda text: recipients_in(text.decode(errors="replace"))),
        Target("mark of a part", (Place(NAME, "guide", "ab" * 16, 3).mark(), Place(NAME, "fast", "ab" * 16, 3).mark()), read_mark),
        Target("record", (written(good.record), *records), sidecar),
        Target("manifest", (manifest_bytes(), written(good.record.manifest)), lambda text: parse_manifest(text, source="it")),
        Target("settings", (SETTINGS.read_bytes(), b"installations:\n  main:\n    directory: /srv/a\n    repository: /srv/b\n"), settings),
        Target("tar stream", (whole, *streams), tar),
        Target("archive, gzip", (good.path.read_bytes(), gzip.compress(whole)), archive),
        Target("archive, zstd", (zstandard.compress(whole),), lambda packed: archive(packed, ".tar.zst")),
        Target("archive, extracted", (whole, *streams), extracted),
        Target("SQL dump", sql, lambda text: dump(text, custom=False)),
        Target("custom dump", custom, lambda text: dump(text, custom=True)),
        Target("head of a dump", (*sql, *custom), head),
        Target("pg_control", (control,), read_control),
        Target("marker", (b'{"id": "0123456789abcdef"}\n',), marker),
        Target("archive's journal", (journal,), lambda text: read_journal(text.decode(errors="replace").splitlines())),
        Target("history", (history,), lambda text: parse_history(text.decode(errors="replace").splitlines())),
        Target("compose file", (compose_text,), compose),
        Target(".env", (b"COMPOSE_FILE=a.yml:b.yml\nA='b'\n",), dot_env),
    ]  # fmt: skip


def run(seconds: float, seed: int, cases: int | None = None) -> dict[str, object]:
    """Feed the targets in turn until the time is over, or so many cases were tried; return the figures."""
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (2 * ROOM_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    counts: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    finds: list[dict[str, object]] = []
    slowest, which = 0.0, ""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "work").mkdir()
        known = targets(place / "work")
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end and (cases is None or number < cases):
            target = known[number % len(known)]
            rng = random.Random(f"{seed} {number}")
            data = altered(rng, rng.choice(target.seeds), target.seeds)
            begun = time.monotonic()
            problem = ""
            try:
                target.feed(data)
                answered[target.name] += 1
            except BackupError as error:
                if not error.message or "Traceback" in error.message:
                    problem = f"no sentence: {error.message!r}"
            except Exception:  # noqa: BLE001 - whatever it is, it is a find
                problem = traceback.format_exc()
            took = time.monotonic() - begun
            if took > SECONDS_LIMIT:
                problem = problem or f"took {took:.1f} s"
            if outside := sorted(str(each) for each in place.iterdir() if each.name != "work"):
                problem = problem or f"wrote {outside}"
            if problem and len(finds) < 50:
                finds.append({"target": target.name, "seed": seed, "case": number, "problem": problem[-1500:]})
            if took > slowest:
                slowest, which = took, f"{target.name}, case {number}"
            counts[target.name] += 1
            number += 1
    memory = peak_kib()
    return {
        "cases": sum(counts.values()), "targets": dict(counts), "answered": dict(answered), "seed": seed, "memory_mb": memory // 1024,
        "memory_held": memory < MEMORY_LIMIT_KIB, "slowest_seconds": round(slowest, 3), "slowest": which, "finds": finds,
    }  # fmt: skip


def main() -> int:
    """Run as long as asked for and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--cases", type=int)
    given = parser.parse_args()
    told = run(given.seconds, given.seed, given.cases)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return 1 if told["finds"] or not told["memory_held"] else 0


if __name__ == "__main__":
    sys.exit(main())
