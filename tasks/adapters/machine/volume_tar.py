"""A volume's content as GNU tar writes and reads it: by this host's own where it may look, else inside a helper container.

Filled is a volume only inside such a container, which sees nothing else: what an archive says cannot lead out of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from tasks.adapters.engine.programs import run_program, start_program
from tasks.adapters.host.processes import run, start_piped
from tasks.core.errors import BackupError, ProgramFailed
from tasks.core.machine.tar_words import CHANGED, is_gnu, pack_words, unpack_words, warnings_of

VOLUME_PLACE = "/volume"
CHUNK_BYTES = 1 << 20
END_SECONDS = 60.0
STDERR_KEPT_BYTES = 65_536


def readable_here(place: Path | None) -> bool:
    """Tell whether this host's own tar can read a volume as it is: as root, and GNU's."""
    return (
        place is not None and os.geteuid() == 0 and os.access(place, os.R_OK | os.X_OK) and place.is_dir() and _is_gnu()
    )


def _is_gnu() -> bool:
    try:
        return is_gnu(run(("tar", "--version"), timeout_seconds=30).stdout)
    except BackupError:
        return False


def pack_here(place: Path, warnings: list[str]) -> Iterator[bytes]:
    """Yield the tar of a directory of this host; what changed meanwhile is added to `warnings`."""
    command, said = pack_words(str(place)), bytearray()
    with start_piped(command, read=True, environment={"LC_ALL": "C"}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        reader = threading.Thread(target=_keep, args=(process.stderr, said), daemon=True)
        reader.start()
        while chunk := process.stdout.read(CHUNK_BYTES):
            yield chunk
        code = process.wait(END_SECONDS)
        reader.join(END_SECONDS)
    _judge(command, code, said.decode(errors="replace"), warnings)


def pack_in(container_id: str, warnings: list[str]) -> Iterator[bytes]:
    """Yield the tar of the volume of a helper container; what changed meanwhile is added to `warnings`."""
    command = pack_words(VOLUME_PLACE)
    with start_program(container_id, command, user="0", environment={"LC_ALL": "C"}) as program:
        yield from program.chunks()
        code = program.wait(END_SECONDS)
        _judge(command, code, program.stderr_tail, warnings)


def unpack_in(container_id: str, chunks: Iterable[bytes]) -> list[str]:
    """Fill the volume of a helper container from a tar, on the disk before the return; give what tar said of single files."""
    command = unpack_words(VOLUME_PLACE)
    with start_program(container_id, command, user="0", environment={"LC_ALL": "C"}, stdin=True) as program:
        for chunk in chunks:
            program.write(chunk)
        program.close_stdin()
        code = program.wait(END_SECONDS * 60)
        said = program.stderr_tail
        if code != 0:
            raise program.failure(f"failed with exit code {code}", exit_code=code)
    run_program(container_id, ("sync",), user="0", timeout_seconds=600)
    return warnings_of(said)


def _judge(command: tuple[str, ...], code: int, said: str, warnings: list[str]) -> None:
    if code not in (0, CHANGED):
        raise ProgramFailed(
            f"tar failed with exit code {code}: {said.strip()[-2000:] or '(no message)'}",
            command=command, exit_code_seen=code, stderr=said,
        )  # fmt: skip
    warnings += warnings_of(said)


def _keep(stream: IO[bytes], said: bytearray) -> None:
    while chunk := stream.read(4096):
        if len(said) < STDERR_KEPT_BYTES:
            said += chunk
