"""Put a chain of incremental backups together, by `pg_combinebackup` of the installation's own image."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.adapters.engine import containers
from tasks.adapters.engine.labels import COPY_LABEL
from tasks.adapters.host.files import make_directory, remove_tree
from tasks.core.errors import ArchiveDamaged
from tasks.core.stack.installation import Installation, Mount
from tasks.recovery.helper_containers import helper_container
from tasks.step import step

logger = logging.getLogger(__name__)

COMBINE_SECONDS = 24 * 3600.0
INSIDE = "/chain"
RESULT = "whole"
LINKS = ".links"
_FICLONE = 0x40049409


def links_of(data: Path) -> Path:
    """Name the directory in which the links of a chain are extracted, beside what is made of them."""
    return data.with_name(data.name + LINKS)


def link_place(data: Path, number: int) -> Path:
    """Name the directory of one link."""
    return links_of(data) / f"{number:06d}"


@step(name="put chain together", retries=0)
def combine(installation: Installation, data: Path, count: int, *, major: int, label: str) -> None:
    """Make a whole data directory of `count` extracted links, and give it its place; the links go.

    Raise ArchiveDamaged, with PostgreSQL's words, where they are no chain.
    """
    links = links_of(data)
    owner = (link_place(data, count - 1) / "PG_VERSION").stat()
    way = _copy_way(links, major)
    names = [f"{INSIDE}/{link_place(data, number).name}" for number in range(count)]
    logger.info("Putting %d links together (%s)", count, way)
    said, code = _run_combine(installation, links, [way, f"--output={INSIDE}/{RESULT}", *names], label)
    if code != 0:
        raise ArchiveDamaged(
            f"PostgreSQL cannot put the chain together (pg_combinebackup ended with {code}): {_told(said, count)}",
            hint="take another backup; `mailarchiver-backup list` shows them",
        )
    made = links / RESULT
    _own(made, owner.st_uid, owner.st_gid)
    os.rename(made, data)
    remove_tree(links)


def _run_combine(installation: Installation, links: Path, words: Sequence[str], label: str) -> tuple[str, int]:
    command = f"PATH=$PATH:$(pg_config --bindir 2>/dev/null) exec pg_combinebackup --no-sync {shlex.join(words)}"
    with helper_container(
        installation,
        ["-c", command],
        mounts=[Mount("bind", str(links), INSIDE, links)],
        labels={COPY_LABEL: label},
        entrypoint=["sh"],
    ) as helper:
        containers.start_container(helper)
        code = containers.wait_container(helper, COMBINE_SECONDS)
        return containers.logs(helper, 10).strip(), code


def _told(said: str, count: int) -> str:
    """Give PostgreSQL's words with the links counted as people do."""
    return re.sub(rf"{INSIDE}/(\d{{6}})", lambda found: f"link {int(found[1]) + 1} of {count}", said)


def _copy_way(links: Path, major: int) -> str:
    """Choose how what has not changed comes into the result: without a copy, where that can be."""
    if major >= 18:
        return "--link"  # the links are ours alone, and go
    for way, share in (("--clone", _clones), ("--copy-file-range", _ranges)):
        if share(links):
            return way
    return "--copy"


def _clones(directory: Path) -> bool:
    return _tried(directory, lambda source, target: fcntl.ioctl(target, _FICLONE, source))


def _ranges(directory: Path) -> bool:
    return _tried(directory, lambda source, target: os.copy_file_range(source, target, 4096))


def _tried(directory: Path, share: Callable[[int, int], object]) -> bool:
    """Tell whether the file system takes a way of sharing, by trying it with a block."""
    make_directory(directory)
    source, target = tempfile.TemporaryFile(dir=directory), tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed below
    with source, target:
        source.write(bytes(4096))
        source.flush()
        source.seek(0)
        try:
            share(source.fileno(), target.fileno())
        except OSError:
            return False
        return os.fstat(target.fileno()).st_size == 4096


def _own(tree: Path, user: int, group: int) -> None:
    """Give all of what the container's root has made to PostgreSQL's user."""
    for above, _, names in os.walk(tree):
        os.chown(above, user, group, follow_symlinks=False)
        for name in names:
            os.chown(os.path.join(above, name), user, group, follow_symlinks=False)
