"""Where the compressed bytes of an encrypted archive go: into age files, each a part of an outer tar. No plaintext is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.adapters.archive.age import Encryption, encrypt
from tasks.adapters.archive.sink import Room, Sink
from tasks.adapters.host.files import BytesLike
from tasks.core.archive.manifest import Format
from tasks.core.archive.sealed_layout import LAST_NUMBER, PART_BYTES, Place, fill_room, room_bytes
from tasks.core.archive.tar_writer import END_BLOCKS, padding
from tasks.core.errors import BackupError, Refused

_ATTEMPTS_TO_FIT = 20


@dataclass(frozen=True, slots=True)
class Sealing:
    """How one archive is encrypted: to whom, and by which secret its parts know each other."""

    name: str
    format: Format
    recipients: tuple[str, ...]
    secret: str = field(repr=False)

    def place(self, number: int) -> Place:
        """Give the place of a part."""
        if number > LAST_NUMBER:
            raise Refused(f"the archive would have more than {LAST_NUMBER:,} parts")
        return Place(self.name, self.format, self.secret, number)


class SealedSink(Sink):
    """A sink that encrypts; `parts` counts those that it has begun. Where `is_last`, its end is that of the outer tar."""

    def __init__(
        self, sink: Sink, sealing: Sealing, *, before: int, is_last: bool = False, part_bytes: int = PART_BYTES
    ) -> None:
        super().__init__(sink.path, sink.descriptor, sink.position)
        self.parts = 0
        self._sealing, self._before, self._is_last, self._part_bytes = sealing, before, is_last, part_bytes
        self._part: Encryption | None = None
        self._left = 0
        self._begins = 0

    def write(self, data: BytesLike) -> int:
        """Encrypt all of `data`, into as many parts as it takes, unless this segment was given up."""
        view = memoryview(data)
        at = 0
        while at < len(view) and not self.discard:
            part = self._part or self._begin()
            piece = view[at : at + self._left]
            part.write(piece)
            at += len(piece)
            self._left -= len(piece)
            if not self._left:
                self._end_part()
        return len(view)

    def reserve(self, data: bytes) -> Room:
        """Leave room for a part of its own, as long as one of `data` at the most; it stays empty until it is filled."""
        self._end_part()
        place = self._next_place()
        position = self.position
        super().write(bytes(room_bytes(len(encrypt(place.mark() + data, self._sealing.recipients)))))
        return Room(position, self.position - position, place)

    def fill(self, room: Room, data: bytes) -> None:
        """Encrypt `data` into its room; the rest of the room becomes a filler."""
        if self.discard:
            return
        assert isinstance(room.place, Place)
        for _ in range(_ATTEMPTS_TO_FIT):
            sealed = encrypt(room.place.mark() + data, self._sealing.recipients)
            content = fill_room(room.place, sealed, room.bytes)
            if content is not None:
                self.overwrite(content, room.position)
                return
        raise BackupError(
            f"an encrypted header does not fit into the {room.bytes} bytes that were reserved for it", transient=True
        )

    def end(self) -> None:
        """End the part that is open; at the end of the archive, the outer tar too."""
        self._end_part()
        if self._is_last and not self.discard:
            super().write(END_BLOCKS)

    def abandon(self) -> None:
        """Stop encrypting; what was written is going to be cut off."""
        self.discard = True
        part, self._part = self._part, None
        if part is not None:
            part.abandon()

    def _next_place(self) -> Place:
        self.parts += 1
        return self._sealing.place(self._before + self.parts)

    def _begin(self) -> Encryption:
        self._place = self._next_place()
        self._begins = self.position
        super().write(self._place.header("age", 0))
        self._part = Encryption(self._sealing.recipients, super().write)
        mark = self._place.mark()
        self._part.write(mark)
        self._left = self._part_bytes - len(mark)
        return self._part

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        if self.discard:
            part.abandon()
            return
        part.end()
        begins, place = self._begins, self._place
        header = place.header("age", 0)
        size = self.position - begins - len(header)
        super().write(padding(size))
        self.overwrite(place.header("age", size), begins)


def seal_first(sink: Sink, sealing: Sealing, data: bytes) -> int:
    """Write the first part of an archive, something small; return how many parts there are now.

    Its mark comes last: programs tell a format by the first bytes, which must be the archive's own.
    """
    place = sealing.place(1)
    sealed = encrypt(data + place.mark(), sealing.recipients)
    sink.write(place.header("age", len(sealed)) + sealed + padding(len(sealed)))
    return 1
