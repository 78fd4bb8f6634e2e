"""Look for plaintext of encrypted archives on disks: in every file while a run works, and afterwards in what deleted files have left.

What is looked for can stand on a disk in no other way than as plaintext of an archive: two columns of a row as a dump
writes them (PostgreSQL's own files know no tab between columns), and pieces of the compressed archive itself, which are
known once it has been decrypted. What was written and deleted again is found in the bytes of the disk.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyrage

LEFT, RIGHT = "c4nary-of-a-subject-91be07", "c4nary-of-a-body-2f6d18"
ROW = f"{LEFT}\t{RIGHT}".encode()
LOOK_SECONDS = 0.5
PIECE_BYTES = 8 << 20
WINDOW_BYTES = 48
_AGE_KEY = b"AGE-SECRET-KEY-1"


def plant(run_sql: Callable[[str], object]) -> None:
    """Put the canary into the oldest mail of a stack."""
    run_sql(f'UPDATE mail_archiver."ArchivedEmails" SET "Subject" = \'{LEFT}\', "Body" = \'{RIGHT}\' WHERE "Id" = 1')


def pieces_of(archive: Path, identity: str, wanted: int = 24) -> dict[str, bytes]:
    """Decrypt an archive, in memory alone, and give pieces of its compressed plaintext from its beginning to its end."""
    key, parts = pyrage.x25519.Identity.from_str(identity), []
    with tarfile.open(archive) as tar:
        for member in sorted((each for each in tar if each.name.endswith(".age")), key=lambda each: each.name):
            content = tar.extractfile(member)
            assert content is not None
            parts.append(pyrage.decrypt(content.read(), [key]))
    plain = b"".join(parts)
    found: dict[str, bytes] = {}
    step = max(1, len(plain) // (wanted * 2))
    for at in range(0, len(plain) - WINDOW_BYTES, step):
        window = plain[at : at + WINDOW_BYTES]
        if len(set(window)) > WINDOW_BYTES // 2:  # neither padding nor text that stands elsewhere too
            found[f"byte {at:,} of the plaintext of {archive.name}"] = window
    assert len(found) >= min(wanted, 4), "hardly anything of this archive could be recognised"
    return dict(list(found.items())[: 2 * wanted])


def hits_in(stream: BinaryIO, needles: Mapping[str, bytes]) -> set[str]:
    """Name what stands in a stream of bytes."""
    found: set[str] = set()
    overlap, before = max(map(len, needles.values()), default=1) - 1, b""
    while piece := stream.read(PIECE_BYTES):
        if piece.count(0) != len(piece) or before.count(0) != len(before):
            window = before + piece
            found |= {name for name, needle in needles.items() if name not in found and needle in window}
        before = piece[-overlap:]
    return found


@dataclass
class Watch:
    """Files looked at again and again; `found` says what stood where, `keys` are the one-time keys that were seen in memory."""

    needles: dict[str, bytes]
    found: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    looks: int = 0
    files: int = 0
    since: float = field(default_factory=time.time)
    _known: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def look(self, places: Collection[Path]) -> None:
        """Read all files that have changed since the last look."""
        self.looks += 1
        for place in places:
            for path in _files_below(place):
                with suppress(OSError):  # it may be gone at any moment
                    about = os.lstat(path)
                    state = (about.st_ino, about.st_size, about.st_mtime_ns)
                    old = about.st_ctime_ns < self.since * 1e9
                    if not stat.S_ISREG(about.st_mode) or old or self._known.get(path) == state:
                        continue
                    self._known[path] = state
                    self.files += 1
                    with open(path, "rb") as file:
                        self.found |= {f"{name} in {path}" for name in hits_in(file, self.needles)}

    def note_keys(self, memory: Path) -> None:
        """Remember the keys that lie in memory now."""
        for path in memory.glob("*") if memory.is_dir() else ():
            with suppress(OSError):
                content = path.read_bytes()
                if (at := content.find(_AGE_KEY)) >= 0:
                    self.keys.setdefault(content[at : at + 74].decode(), f"the key {path.name}")


@contextmanager
def watching(
    places: Callable[[], Collection[Path]], *, memory: Path, engine_root: Path | None = None
) -> Iterator[Watch]:
    """Look all the time, until the block ends, at what changes in these places, and in containers and volumes that an engine makes meanwhile."""
    watch, over = Watch({"a row of a dump": ROW}), threading.Event()
    before = set(_of_containers(engine_root))

    def look() -> None:
        while True:
            last = over.is_set()
            watch.look([*places(), *(each for each in _of_containers(engine_root) if each not in before)])
            watch.note_keys(memory)
            if last:
                return
            over.wait(LOOK_SECONDS)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join(60)


def _of_containers(root: Path | None) -> list[Path]:
    """List where an engine's containers write: their layers and volumes."""
    return [*root.glob("overlay2/*/diff"), *root.glob("volumes/*/_data")] if root is not None else []


def _files_below(place: Path) -> Iterator[str]:
    try:
        with os.scandir(place) as entries:
            for each in entries:
                if each.is_dir(follow_symlinks=False):
                    yield from _files_below(Path(each.path))
                else:
                    yield each.path
    except OSError:
        return


@dataclass(frozen=True)
class Disk:
    """A file system of a test's own, all of whose bytes can be looked at: files, and what deleted ones have left."""

    place: Path
    image: Path

    def hits(self, needles: Mapping[str, bytes]) -> set[str]:
        """Name what stands anywhere on the disk."""
        subprocess.run(["sync", "--file-system", str(self.place)], check=True)
        with self.image.open("rb") as stream:
            return hits_in(stream, needles)

    def require_sight(self) -> None:
        """See that a file is found on this disk after it was deleted: else an empty search would prove nothing."""
        control = os.urandom(WINDOW_BYTES // 2).hex().encode()
        path = self.place / "control"
        with path.open("wb") as file:
            file.write(bytes(70_000) + control)
            os.fsync(file.fileno())
        path.unlink()
        assert self.hits({"control": control}) == {"control"}, "what is deleted here cannot be found again"


@contextmanager
def disk(place: Path, megabytes: int) -> Iterator[Disk]:
    """Lend a disk of its own, mounted at a place; raise OSError where this machine may not mount one."""
    place.mkdir(parents=True, exist_ok=True)
    image = place.with_name(f"{place.name}.image")
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    try:
        for command in (
            ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)],
            ["mount", "-o", "loop,nodiscard", str(image), str(place)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
        try:
            yield Disk(place, image)
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
    finally:
        image.unlink(missing_ok=True)
