"""Read a small file as a container sees it: through its mount on this host, else out of the container."""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from tasks.adapters.engine import container_files
from tasks.adapters.engine.client import api_client, in_our_words
from tasks.adapters.engine.containers import container_name
from tasks.adapters.host.outside_files import DATA_FILE, UnfitFile, read_outside
from tasks.core.errors import BackupError
from tasks.core.stack.identify import mount_holding
from tasks.core.stack.installation import Service

logger = logging.getLogger(__name__)

FILE_LIMIT_BYTES = 1 << 20


def read_container_file(service: Service, path: str) -> bytes | None:
    """Return a file's content, of a container in any state; None where there is none, or it is no small regular file."""
    content = _from_mount(service, path)
    if content is None and service.container_id:
        content = _from_container(service.container_id, path)
    return content


def _from_mount(service: Service, path: str) -> bytes | None:
    mount = mount_holding(path, service.mounts)
    if mount is None or mount.host_path is None:
        return None
    place = mount.host_path / PurePosixPath(path).relative_to(mount.target)
    try:
        # A link would lead elsewhere on the host than in the container: Docker follows that one.
        return read_outside(place, DATA_FILE)[0]
    except (FileNotFoundError, UnfitFile) as error:
        logger.debug("%s cannot be read here: %s", place, error)
        return None


def _from_container(container_id: str, path: str) -> bytes | None:
    try:
        packed = b"".join(_at_most(container_files.get_archive_stream(container_id, path), 2 * FILE_LIMIT_BYTES))
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
            first = archive.next()
            if first is None or not first.isreg():
                return None
            content = archive.extractfile(first)
            return content.read() if content else None
    except (BackupError, tarfile.TarError) as error:
        logger.debug("%s cannot be read from container %s: %s", path, container_id[:12], error)
        return None


def _at_most(chunks: Iterator[bytes], limit_bytes: int) -> Iterator[bytes]:
    for chunk in chunks:
        limit_bytes -= len(chunk)
        if limit_bytes < 0:
            raise BackupError("it is too big")
        yield chunk


ARCHIVE_CHUNK_BYTES = 1 << 20


def get_archive_stream(container_id: str, path: str) -> Iterator[bytes]:
    """Yield a tar of a path of a container, running or not, as Docker makes it.

    Docker tells of no error once the tar has begun: the caller proves that it is whole by reading it to tar's own end.
    Raise BackupError where the path is absent.
    """
    with in_our_words(f"read {path} of container {container_name(container_id)}"):
        chunks, _ = api_client().get_archive(container_id, path, chunk_size=ARCHIVE_CHUNK_BYTES)
        yield from chunks


def put_archive(container_id: str, path: str, data: Iterable[bytes]) -> None:
    """Unpack a tar into a directory of a container, running or not, with the owners and modes it names."""
    with in_our_words(f"write to {path} of container {container_name(container_id)}"):
        api_client().put_archive(container_id, path, iter(data))
