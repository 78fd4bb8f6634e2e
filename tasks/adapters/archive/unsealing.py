"""Read an encrypted archive: the parts of its outer tar, decrypted one after another, each bound to its place.

What comes out counts only when the end was reached without an error: the last bytes of a part may say that it was cut.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from tasks.adapters.archive import age
from tasks.adapters.archive.source import CHUNK_BYTES, HashingReader
from tasks.adapters.host.streams import read_ahead
from tasks.core.archive.sealed_layout import MARK_LIMIT_BYTES, SECRET_BYTES, Place, directory_in, read_entry, read_mark
from tasks.core.archive.tar_writer import BLOCK_BYTES
from tasks.core.errors import ArchiveDamaged, NoKey

SMALL_PART_BYTES = 2 << 20
_HINT = "the encrypted archive was altered or damaged: take another, `mailarchiver-backup list` shows them"
NO_KEY_HINT = "give the key that opens it: --identity FILE, or MAILARCHIVER_BACKUP_IDENTITY; without it `check` still tells whether the file is what was sealed"


def unsealed(source: HashingReader, identities: Sequence[str], file_name: str) -> Unsealed:
    """Begin to decrypt an archive with the identities; the caller closes it. Reading raises NoKey where none of them opens it."""
    return Unsealed(source, identities, file_name)


class Unsealed:
    """The content of an encrypted archive."""

    def __init__(self, source: HashingReader, identities: Sequence[str], file_name: str) -> None:
        self._source = source
        self._pieces = read_ahead(_content(source, tuple(identities), file_name), name="unseal")
        self._held = b""

    @property
    def count(self) -> int:
        """How many bytes of the encrypted file were read."""
        return self._source.count

    def head(self, size: int, /) -> bytes:
        """Give the first `size` bytes; `read` gives them again."""
        while len(self._held) < size and (piece := next(self._pieces, b"")):
            self._held += piece
        return self._held[:size]

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes; empty means the end, of an archive that is whole."""
        if not self._held:
            self._held = next(self._pieces, b"")
        wanted = size if size >= 0 else CHUNK_BYTES
        data, self._held = self._held[:wanted], self._held[wanted:]
        return data

    def close(self) -> None:
        """End the processes and threads that decrypt."""
        self._pieces.close()


def _content(source: HashingReader, identities: tuple[str, ...], file_name: str) -> Generator[bytes, None, None]:
    if not identities:
        raise NoKey(f"{file_name} is encrypted, and no key is at hand that opens it", hint=NO_KEY_HINT)
    first: Place | None = None
    number = 1
    block = _exactly(source, BLOCK_BYTES, file_name)
    announced = directory_in(block)
    while block.strip(b"\0"):
        entry = read_entry(block, announced.directory if announced else "", number)
        sealed = _limited(source, entry.size, file_name)
        if entry.kind == "filler":
            _require_zeros(sealed, number)
        else:
            with closing(_part(sealed, entry.size, identities, file_name, number)) as plain:
                first = yield from _in_place(plain, first, announced, number)
            number += 1
        _require_zeros(iter((_exactly(source, -entry.size % BLOCK_BYTES, file_name),)), number)
        block = _exactly(source, BLOCK_BYTES, file_name)
    if _exactly(source, BLOCK_BYTES, file_name).strip(b"\0") or source.read(1):
        raise ArchiveDamaged(f"something follows the last part of {file_name}", hint=_HINT)


def _part(
    sealed: Iterator[bytes], size: int, identities: tuple[str, ...], file_name: str, number: int
) -> Generator[bytes, None, None]:
    """Decrypt one part; raise NoKey for the first alone: keys that opened one part open all."""
    try:
        if size <= SMALL_PART_BYTES:
            yield age.decrypt(b"".join(sealed), identities)
        else:
            yield from age.decrypted(sealed, identities)
    except NoKey as error:
        if number == 1:
            raise NoKey(f"{file_name}: {error.message}", hint=NO_KEY_HINT) from error
        raise ArchiveDamaged(f"part {number} of {file_name} is encrypted to other keys", hint=_HINT) from error
    except ArchiveDamaged as error:
        raise ArchiveDamaged(f"part {number} of {file_name} is damaged: {error.message}", hint=_HINT) from error


def _in_place(
    plain: Iterator[bytes], first: Place | None, announced: Place | None, number: int
) -> Generator[bytes, None, Place]:
    """Give a part's content without its mark; raise ArchiveDamaged where the mark is of another place. Return the first part's place."""
    head = b""
    while (number == 1 or len(head) < MARK_LIMIT_BYTES) and (piece := next(plain, b"")):
        head += piece
        if len(head) > SMALL_PART_BYTES and number == 1:
            raise ArchiveDamaged("the first part is larger than any that we write", hint=_HINT)
    if number == 1 and announced is not None:  # its mark comes last
        length = len(Place(announced.name, announced.format, "0" * 2 * SECRET_BYTES, number).mark())
        head = head[-length:] + head[:-length]
    found = read_mark(head)
    belongs = (
        found is not None
        and announced is not None
        and (found[0].directory, found[0].number) == (announced.directory, number)
        and (first is None or found[0].secret == first.secret)
    )
    if found is None or not belongs:
        raise ArchiveDamaged(f"part {number} is of another archive, or of another place in this one", hint=_HINT)
    place, length = found
    if rest := head[length:]:
        yield rest
    yield from plain
    return first or place


def _limited(source: HashingReader, size: int, file_name: str) -> Iterator[bytes]:
    while size:
        piece = source.read(min(size, CHUNK_BYTES))
        if not piece:
            raise ArchiveDamaged(f"{file_name} ends too early: it was cut off", hint=_HINT)
        size -= len(piece)
        yield piece


def _exactly(source: HashingReader, size: int, file_name: str) -> bytes:
    return b"".join(_limited(source, size, file_name))


def _require_zeros(pieces: Iterator[bytes], number: int) -> None:
    for piece in pieces:
        if piece.strip(b"\0"):
            raise ArchiveDamaged(f"something that is no part lies before part {number}", hint=_HINT)
