"""May this installation's PostgreSQL be upgraded to that image, and where will its data lie? Decided from facts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.core.errors import Refused, UsageError
from tasks.core.quoting import quoted_literal
from tasks.core.stack.compatibility import Platform

_REFERENCE = re.compile(
    r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?::\d+)?(?:/[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)*"
    r"(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
# Since 18 the official image keeps each major's data in a directory of its own, below one mount.
_OWN_DIRECTORY = re.compile(r"/var/lib/postgresql/\d+/docker", re.ASCII)
_LISTS = frozenset({
    "shared_preload_libraries", "session_preload_libraries", "local_preload_libraries", "search_path", "temp_tablespaces",
    "unix_socket_directories",
})  # fmt: skip
_MOUNT_SINCE_18 = "/var/lib/postgresql"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an image keeps its data: PGDATA, and where the mount that holds it has to be."""

    pgdata: str
    target: str

    @property
    def inside(self) -> PurePosixPath:
        """Give the data directory's place below the mount."""
        return PurePosixPath(self.pgdata).relative_to(self.target)


def require_image_name(image: str, *, current: str, anywhere: bool, option: str = "--to") -> None:
    """Raise UsageError for what is no image's name; unless `anywhere`, for one of another repository than the current image's.

    Anyone who reaches Prefect's API may give a run its parameters, and so must not choose whose program gets the data.

    >>> require_image_name("postgres:17-alpine", current="postgres:15", anywhere=False)
    """
    if len(image) > 255 or not _REFERENCE.fullmatch(image):
        raise UsageError(
            f"{image!r} is no image's name",
            hint="for instance postgres:17-alpine" if option == "--to" else "for instance s1t5/mailarchiver:2609.1",
        )
    if not anywhere and repository_of(image) != repository_of(current):
        raise UsageError(
            f"{image} is of another repository than {current}; a flow run takes only another tag of the same one",
            hint=f"on the machine itself: mailarchiver-backup upgrade {option} {image}",
        )


def repository_of(image: str) -> str:
    """Give an image's name without tag and digest.

    >>> repository_of("localhost:5000/postgres:17@sha256:ab"), repository_of("postgres")
    ('localhost:5000/postgres', 'postgres')
    """
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def layout_after(*, target: str, pgdata_set: str, image_pgdata: str) -> Layout:
    """Say where the data will lie under the new image. `pgdata_set` is the compose file's own PGDATA, "" where it sets none.

    >>> layout_after(target="/var/lib/postgresql/data", pgdata_set="", image_pgdata="/var/lib/postgresql/18/docker")
    Layout(pgdata='/var/lib/postgresql/18/docker', target='/var/lib/postgresql')
    """
    pgdata = pgdata_set or image_pgdata
    if PurePosixPath(pgdata).is_relative_to(target):
        return Layout(pgdata, target)
    if _OWN_DIRECTORY.fullmatch(pgdata) and PurePosixPath(target).is_relative_to(_MOUNT_SINCE_18):
        return Layout(pgdata, _MOUNT_SINCE_18)
    raise Refused(
        f"the new image keeps its data in {pgdata}, which the mount at {target} does not hold",
        hint="set PGDATA in the compose file to a place below that mount",
    )


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is to be carried over, and what might be lost: `others` are databases besides the application's."""

    major: int
    platform: Platform
    extensions: Mapping[str, str]
    others: tuple[str, ...] = ()
    tablespaces: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    beside_data: tuple[str, ...] = ()


def refuse_unfit_upgrade(old: Cluster, new: Platform, available: Collection[str], *, image: str) -> None:
    """Raise Refused where the new image is no upgrade, lacks something, or something would be left behind."""
    if new.major <= old.major:
        raise Refused(
            f"{image} is PostgreSQL {new.major}; the installation has {old.major} already",
            hint="an upgrade goes to a higher major version; a minor one needs only `docker compose pull` and `up -d`",
        )
    if lacking := sorted(set(old.extensions) - set(available)):
        raise Refused(f"{image} lacks the extensions {', '.join(lacking)}", hint="choose an image that has them")
    if old.others:
        raise Refused(
            f"the server has other databases too, which would be left behind: {', '.join(old.others)}",
            hint="move them to a server of their own, or dump and drop them",
        )
    if old.tablespaces:
        raise Refused(
            f"tablespaces lie outside the data directory: {', '.join(old.tablespaces)}",
            hint="move their tables back: ALTER TABLE ... SET TABLESPACE pg_default",
        )
    if old.kept:
        raise Refused(
            f"what an earlier restore or upgrade put aside would be left behind: {', '.join(old.kept)}",
            hint="mailarchiver-backup commit (or rollback) first",
        )
    if old.beside_data:
        raise Refused(
            f"the mount of the data holds something else too: {', '.join(old.beside_data)}",
            hint="move it elsewhere: the whole mount is put aside",
        )


def changes_of_platform(old: Platform, new: Platform) -> tuple[str, ...]:
    """Say how the new image sorts text otherwise: nothing is wrong after it, since all indexes are built anew."""
    libc = f"{old.libc} {old.libc_version}".strip(), f"{new.libc} {new.libc_version}".strip()
    if libc[0] == libc[1]:
        return ()
    return (
        f"the C library changes from {libc[0]} to {libc[1]}: text may sort otherwise from then on; indexes are built anew for that",
    )


def settings_to_carry(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Give the settings of the old server's own files that the new server does not have so.

    >>> settings_to_carry({"work_mem": "8MB", "port": "5432"}, {"port": "5432"})
    {'work_mem': '8MB'}
    """
    return {name: value for name, value in sorted(old.items()) if new.get(name) != value}


def set_for_the_server(name: str, value: str) -> str:
    """Word the statement that writes a setting into the server's own file; some are lists of names, each quoted by itself.

    >>> set_for_the_server("shared_preload_libraries", "a, b"), set_for_the_server("work_mem", "8MB")
    ("ALTER SYSTEM SET shared_preload_libraries = 'a', 'b'", "ALTER SYSTEM SET work_mem = '8MB'")
    """
    words = [word.strip() for word in value.split(",")] if name in _LISTS else [value]
    return f"ALTER SYSTEM SET {name} = {', '.join(quoted_literal(word) for word in words)}"


def catalogue_differences(old: Mapping[str, int], new: Mapping[str, int]) -> list[str]:
    """Say of which kinds of objects there are others than before."""
    return [
        f"{new.get(kind, 0)} {kind}, {old.get(kind, 0)} before"
        for kind in sorted(old.keys() | new.keys())
        if old.get(kind, 0) != new.get(kind, 0)
    ]
