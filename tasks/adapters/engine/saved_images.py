"""Images as `docker save` writes and `docker load` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from tasks.adapters.engine.client import api_client, in_our_words
from tasks.core.errors import BackupError

CHUNK_BYTES = 1 << 20


def image_bytes(image_id: str) -> int:
    """Give how many bytes an image has on this host."""
    with in_our_words(f"look at image {image_id}"):
        return int(api_client().inspect_image(image_id).get("Size") or 0)


def save_image(name: str) -> Iterator[bytes]:
    """Yield an image, with its name, as a tar."""
    with in_our_words(f"save image {name}"):
        yield from api_client().get_image(name, chunk_size=CHUNK_BYTES)


def load_image(data: Iterable[bytes]) -> None:
    """Load what `save_image` gave; raise BackupError with Docker's words where it refuses it."""
    with in_our_words("load an image"):
        for said in api_client().load_image(data, quiet=True) or ():
            told = said if isinstance(said, dict) else json.loads(said)
            if "error" in told:
                raise BackupError(f"Docker does not load the image: {told['error']}")


def tag_image(image_id: str, name: str) -> None:
    """Give an image a name."""
    repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
    with in_our_words(f"name image {name}"):
        api_client().tag(image_id, repository, tag)
