"""What may be wrong with an installation, decided from what was seen of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from tasks.core.stack.identify import is_anonymous
from tasks.core.stack.installation import Installation, command_to_run

# Of the guide and of upstream's compose files.
_DEFAULT_PASSWORDS = {
    "masterkey": "POSTGRES_PASSWORD",
    "secure123!": "Authentication__Password",
    "secret123!": "Authentication__Password",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing worth an operator's look; an "error" stands in the way of backups, a "warning" does not."""

    severity: Literal["error", "warning"]
    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What was looked up besides the installation itself.

    `version_file` is the data directory's PG_VERSION ("" where it cannot be read), `published` the addresses at which PostgreSQL is published,
    `other_users` the containers that mount the data too, `around` those that may write to a directory around it,
    `compose_error` why Compose does not understand the files that the containers were made from, `configuration` what
    of it cannot be read or is not set, `drift` how containers differ from the compose files as they are now.
    """

    version_file: str
    image_major: str
    published: Collection[str]
    other_users: Collection[str]
    around: Collection[str] = ()
    compose_error: str = ""
    configuration: Collection[str] = ()
    drift: Collection[str] = ()


def default_passwords(installation: Installation) -> tuple[str, ...]:
    """Name the settings that have a password which everybody knows."""
    postgres, application, database = installation.postgres, installation.application, installation.database
    values = {
        *postgres.environment.values(),
        *application.environment.values(),
        database.password,
        database.superuser_password,
    }
    return tuple(dict.fromkeys(name for password, name in _DEFAULT_PASSWORDS.items() if password in values))


def find_problems(installation: Installation, seen: Seen) -> list[Problem]:
    """List the problems, those that stand in the way first."""
    found: list[Problem] = []
    postgres, application = installation.postgres, installation.application
    if postgres.state != "running":
        found.append(
            Problem(
                "error",
                f"PostgreSQL (service {postgres.name}) is {postgres.state}",
                command_to_run(installation, postgres),
            )
        )
    if application.state != "running":
        found.append(
            Problem("warning", f"the application (service {application.name}) is {application.state}", "is that meant?")
        )
    if seen.other_users:
        found.append(
            Problem(
                "error",
                f"the data directory is mounted by {', '.join(sorted(seen.other_users))} too",
                "two servers on one directory ruin it: remove one",
            )
        )
    if seen.around:
        found.append(
            Problem(
                "warning",
                f"the data directory lies in a directory that {', '.join(sorted(seen.around))} may write to",
                "mount it there read-only, or mount no more than is needed",
            )
        )
    if seen.version_file and seen.image_major and seen.version_file != seen.image_major:
        found.append(
            Problem(
                "error",
                f"the data is of PostgreSQL {seen.version_file}, the image is PostgreSQL {seen.image_major}",
                f"set the image back to PostgreSQL {seen.version_file}; a hot backup loads into a newer one",
            )
        )
    if seen.compose_error:
        found.append(
            Problem(
                "warning",
                f"{seen.compose_error}; what is seen is taken from the containers",
                "mend the file: the backup holds it as it is, and a new machine is set up from it",
            )
        )
    for what in seen.drift:
        found.append(
            Problem("warning", what, "`docker compose up -d` makes it so; the backup holds the file as it is now")
        )
    for what in seen.configuration:
        found.append(Problem("warning", f"the configuration is not whole: {what}", "a new machine would lack it"))
    if installation.keys_mount is None:
        found.append(
            Problem(
                "warning",
                "the data-protection keys lie inside the application's container",
                "mount a directory at /app/DataProtection-Keys, or every update logs all users out",
            )
        )
    if is_anonymous(installation.data_mount):
        found.append(
            Problem(
                "warning",
                "the data lies in an anonymous volume, which `docker compose down -v` removes",
                "name the volume, or mount a directory",
            )
        )
    for address in seen.published:
        found.append(
            Problem("warning", f"PostgreSQL is published at {address}", "publish it at 127.0.0.1, or not at all")
        )
    if application.image.endswith(":latest") and application.image_digest is None:
        found.append(
            Problem(
                "warning",
                f"the application's image {application.image} has no fixed version",
                "name a version, so that a restore can find the same one",
            )
        )
    return sorted(found, key=lambda problem: problem.severity)
