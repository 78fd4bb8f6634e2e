"""The one way to open a file that somebody else may have put there: records, archives, settings, keys, configuration, journals.

By its path alone a file may be a FIFO that never answers, a device that never ends, a link to another's secret, or gigabytes where a
line was expected. So each kind of file has its bounds here, and they are judged by what was opened, not by what the path named before.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.core.archive.bounded_json import TEXT_LIMIT_BYTES
from tasks.core.errors import Refused

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileKind:
    """What is expected of a file: its name for people, how large it may be (None: it is read as a stream), who may own it.

    `may_be_link` where an operator has reasons for a link and nothing is decided by where it leads; `ours` where only our own user or
    root may have written it.
    """

    what: str
    limit_bytes: int | None
    may_be_link: bool = False
    ours: bool = False


RECORD = FileKind("record", TEXT_LIMIT_BYTES)
ARCHIVE = FileKind("archive", None)
ARCHIVE_JOURNAL = FileKind("journal of an archive", 256 << 20)
MARKER = FileKind("repository's marker", 4096)
HISTORY = FileKind("history", 32 << 20, ours=True)
STATE = FileKind("file of the state directory", 16 << 20, ours=True)
KEPT_DATA = FileKind("note of kept data", 1 << 20, ours=True)
# Settings are often kept in a checkout and linked from /etc; their owner and mode are judged after the link.
SETTINGS = FileKind("settings file", 1 << 20, may_be_link=True)
PASSWORD = FileKind("password file", 64 << 10, may_be_link=True, ours=True)
# An operator may link a compose file or a certificate; it is compared and kept, and never obeyed by its place.
CONFIGURATION = FileKind("configuration file", 1 << 20, may_be_link=True)
CONTAINER_CONFIGURATION = FileKind("container's configuration", 1 << 20, may_be_link=True, ours=True)
API_TOKEN = FileKind("file with the API token", 4096, may_be_link=True, ours=True)
SSH_KEY = FileKind("file with the SSH key", 64 << 10, may_be_link=True, ours=True)
SSH_KNOWN_HOSTS = FileKind("file of known hosts", 1 << 20, may_be_link=True, ours=True)
CA_FILE = FileKind("file with a CA's certificate", 1 << 20, may_be_link=True)
RCLONE_CONFIG = FileKind("rclone configuration", 1 << 20, may_be_link=True, ours=True)
KEY = FileKind("key file", None)
SIGNING_KEY = FileKind("signing key", 4096, ours=True)
IDENTITY = FileKind("identity file", 64 << 10, may_be_link=True, ours=True)
# A recovery sheet with its QR codes is larger than a key.
MAYBE_KEY = FileKind("file that may hold a key", 1 << 20, may_be_link=True)
VERIFICATION_KEY = FileKind("key for one verification", 4096, ours=True)
RECIPIENTS = FileKind("file of recipients", 64 << 10, may_be_link=True, ours=True)
DATA_FILE = FileKind("file of the data directory", 1 << 20)


class UnfitFile(Refused):
    """A file is not of the kind that was expected; `reason` says in a few words why."""

    def __init__(self, path: Path, kind: FileKind, reason: str) -> None:
        super().__init__(
            f"the {kind.what} {path} cannot be read: {reason}", hint="is the path right, and who may write there?"
        )
        self.reason = reason


@contextmanager
def open_outside(path: Path, kind: FileKind) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file for reading and give its descriptor and facts; never waits for a FIFO or a device.

    Raise FileNotFoundError where there is none, UnfitFile where it is not what its kind allows.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if kind.may_be_link else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UnfitFile(path, kind, _words(error)) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            what = "it is a directory" if stat.S_ISDIR(found.st_mode) else "it is no regular file"
            raise UnfitFile(path, kind, what)
        if kind.limit_bytes is not None and found.st_size > kind.limit_bytes:
            raise UnfitFile(path, kind, f"it has {found.st_size:,} bytes, more than {kind.limit_bytes:,} bytes")
        if kind.ours and found.st_uid not in {0, os.geteuid()}:
            raise UnfitFile(path, kind, f"it belongs to user {found.st_uid}, not to user {os.geteuid()}")
        yield descriptor, found
    finally:
        os.close(descriptor)


def read_outside(path: Path, kind: FileKind) -> tuple[bytes, os.stat_result]:
    """Read a whole file of a kind that has a limit; return its content and facts. Raise as `open_outside` does."""
    assert kind.limit_bytes is not None
    with open_outside(path, kind) as (descriptor, found):
        pieces, left = [], kind.limit_bytes + 1
        try:
            while left > 0 and (piece := os.read(descriptor, min(left, _PIECE_BYTES))):
                pieces.append(piece)
                left -= len(piece)
        except OSError as error:
            raise UnfitFile(path, kind, _words(error)) from error
    if left <= 0:
        raise UnfitFile(path, kind, f"it has more than {kind.limit_bytes:,} bytes")
    return b"".join(pieces), found


def sha256_outside(path: Path, kind: FileKind) -> str:
    """Give the SHA-256 of a file's content, of any size. Raise as `open_outside` does."""
    digest = hashlib.sha256()
    with open_outside(path, kind) as (descriptor, _):
        try:
            while piece := os.read(descriptor, _PIECE_BYTES):
                digest.update(piece)
        except OSError as error:
            raise UnfitFile(path, kind, _words(error)) from error
    return digest.hexdigest()


def _words(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return "its name holds a NUL"
    words = {errno.ELOOP: "it is a link", errno.ENXIO: "it is no regular file"}
    return words.get(error.errno or 0) or error.strerror or str(error)
