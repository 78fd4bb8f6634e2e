"""Who else could touch a data directory, decided from what containers mount and what they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

SERVER_VARIABLES = ("PGDATA", "PG_MAJOR", "PG_VERSION", "POSTGRES_DB", "POSTGRES_USER", "POSTGRESQL_VERSION")
SERVER_PROGRAMS = ("postgres", "postmaster", "pg_ctl")


@dataclass(frozen=True, slots=True)
class OtherUsers:
    """Containers other than the installation's own PostgreSQL that see its data.

    `in_the_way` mount the data, or something within, or are PostgreSQL servers that may write to a directory around it:
    two servers on one data directory ruin it. `around` may write to a directory around it, and are no servers as far as
    can be seen: file managers, backups.
    """

    in_the_way: tuple[str, ...] = ()
    around: tuple[str, ...] = ()


def is_server(environment: Mapping[str, str], image: str, programs: Collection[str]) -> bool:
    """Tell whether a container is, or may become, a PostgreSQL server: by its image's variables, its image's name, or what runs in it.

    >>> is_server({}, "filebrowser/filebrowser:v2", ["filebrowser"])
    False
    """
    repository = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return (
        any(name in environment for name in SERVER_VARIABLES)
        or "postgres" in repository
        or any(program.split(":")[0].split(" ")[0].rpartition("/")[2] in SERVER_PROGRAMS for program in programs)
    )
