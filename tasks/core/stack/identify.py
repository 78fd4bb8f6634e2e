"""Decide what is what in a compose project: the application, its database server, their data and configuration.

Nothing here touches Docker or a disk; the facts come in as values, and an ambiguity is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.core.archive.layout import OUTSIDE, RESERVED_NAMES
from tasks.core.errors import NoMailArchiver, Refused
from tasks.core.stack.connection_string import ConnectionString
from tasks.core.stack.installation import Mount

KEYS_TARGET = "/app/DataProtection-Keys"
SETTINGS_FILES = ("/app/appsettings.Production.json", "/app/appsettings.json")
DEFAULT_PGDATA = "/var/lib/postgresql/data"
DEFAULT_APPLICATION_PORT = 5000
ANY_LOCAL_HOST = ("localhost", "127.0.0.1", "::1")
_CONNECTION_KEYS = ("connectionstrings__defaultconnection", "connectionstrings:defaultconnection")
_SYSTEM_PATHS = ("/dev", "/proc", "/sys", "/run", "/var/run", "/tmp", "/etc/localtime", "/etc/timezone")
_SECRETS = "/run/secrets"
_LOG_NAMES = frozenset({"log", "logs", "backup", "backups"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A service as far as finding out what it is needs it. `hosts` are all names and addresses it answers to."""

    name: str
    image: str
    hosts: frozenset[str]
    environment: Mapping[str, str] = field(repr=False)
    mounts: tuple[Mount, ...]


def connection_setting(environment: Mapping[str, str]) -> str | None:
    """Return the application's connection string from its environment (.NET compares the names without case)."""
    for key, value in environment.items():
        if key.casefold() in _CONNECTION_KEYS and value.strip():
            return value
    return None


def connection_in_settings(text: str, *, source: str) -> str | None:
    """Return the connection string in an appsettings.json, which may hold comments and trailing commas.

    Raise Refused where it is not JSON.
    """
    try:
        settings = json.loads(plain_json(text.lstrip("\ufeff")))
    except ValueError as error:
        raise Refused(
            f"{source} is not readable JSON: {error}", hint="the application reads it too: mend it"
        ) from error
    found = _member(_member(settings, "ConnectionStrings"), "DefaultConnection")
    return found if isinstance(found, str) and found.strip() else None


def choose_application(candidates: Sequence[Candidate], *, project: str) -> Candidate:
    """Return the Mail Archiver among a project's services; raise NoMailArchiver where there is none, Refused where there are more."""
    certain = [each for each in candidates if _is_mail_archiver(each)]
    likely = [each for each in candidates if connection_setting(each.environment) and not is_postgres(each)]
    found = certain or likely
    if len(found) > 1:
        # An exporter or a second tool may share the keys or a name; the application is what has the setting.
        found = [each for each in found if connection_setting(each.environment)] or found
    if not found:
        raise NoMailArchiver(
            f"no service of project {project} is a Mail Archiver (it has: {_names(candidates)})",
            hint="is this the right directory? it is known by its image, its key directory or its connection string",
        )
    if len(found) > 1:
        raise Refused(
            f"project {project} has more than one Mail Archiver: {_names(found)}",
            hint="give each a compose project of its own",
        )
    return found[0]


def choose_postgres(
    candidates: Sequence[Candidate], application: Candidate, connection: ConnectionString | None, *, project: str
) -> Candidate:
    """Return the service that the application's connection string names; without one, the only PostgreSQL.

    Raise Refused where it names none of the project's services, and where nothing decides between two.
    """
    others = [each for each in candidates if each.name != application.name]
    servers = [each for each in others if is_postgres(each)]
    host = connection.host.casefold() if connection else ""
    if host and not host.startswith("/") and not (host in ANY_LOCAL_HOST and len(servers) == 1):
        named = [each for each in others if host in {name.casefold() for name in each.hosts}]
        if len(named) == 1:
            return named[0]
        if not named:
            raise Refused(
                f"service {application.name} of project {project} uses the database server '{connection and connection.host}', "
                f"which is no service of the project (PostgreSQL there: {_names(servers)})",
                hint="a database outside the compose project is not backed up by this program; is the host name right?",
            )
        servers = named
    if len(servers) == 1:
        return servers[0]
    if not servers:
        raise Refused(
            f"no service of project {project} is a PostgreSQL server (it has: {_names(candidates)})",
            hint="is the whole stack in this compose project?",
        )
    raise Refused(
        f"project {project} has more than one PostgreSQL server, {_names(servers)}, "
        f"and nothing says which one {application.name} uses",
        hint="name it as Host in ConnectionStrings__DefaultConnection",
    )


def is_postgres(candidate: Candidate) -> bool:
    """Tell whether a service is a PostgreSQL server, by its image's name or what the official image's kin set."""
    name = _image_name(candidate.image)
    if any(word in name for word in ("postgres", "pgvector", "timescale", "postgis")):
        # Exporters and poolers carry the word too, but not the server's own settings.
        return not any(word in name for word in ("exporter", "bouncer", "pgadmin", "backup"))
    return "PGDATA" in candidate.environment or "PG_MAJOR" in candidate.environment


def _is_mail_archiver(candidate: Candidate) -> bool:
    if is_postgres(candidate):
        return False
    name = re.sub(r"[^a-z0-9]", "", _image_name(candidate.image))
    return ("mailarchive" in name and "backup" not in name) or any(
        PurePosixPath(mount.target).name.casefold() == "dataprotection-keys" for mount in candidate.mounts
    )


def _image_name(image: str) -> str:
    """Return an image's name, with its owner, without registry and tag; a digest alone has none.

    >>> _image_name("registry.example:5000/mailarchiver:2608.1@sha256:0123")
    'mailarchiver'
    """
    first, slash, rest = image.partition("@")[0].partition("/")
    # As Docker tells: only a registry has a dot or a port in the first part.
    name = rest if slash and any(sign in first for sign in ".:") else first + slash + rest
    return "" if image.startswith("sha256:") else "/".join(name.split("/")[-2:]).partition(":")[0].casefold()


def digest_of(image: str, digests: Sequence[str]) -> str | None:
    """Return the registry's digest of an image: that of the repository it was asked for from, else any that is known.

    >>> digest_of("postgres:17", ["example/postgres@sha256:a", "postgres@sha256:b"])
    'sha256:b'
    """
    repository = _repository(image)
    own = [digest for digest in digests if _repository(digest) == repository]
    return next((digest.rpartition("@")[2] for digest in own or digests), None)


def _repository(image: str) -> str:
    """Return an image's name without tag, digest and what Docker's own registry may be called."""
    name = image.partition("@")[0]
    if ":" in name.rpartition("/")[2]:
        name = name.rpartition(":")[0]
    return re.sub(r"^(?:(?:index\.)?docker\.io/)?(?:library/)?", "", name)


# --- Places ----------------------------------------------------------------------------------------------------------


def pgdata_of(environment: Mapping[str, str], image: str, mounts: Sequence[Mount]) -> str:
    """Return PGDATA: what the environment (the image's included) says, else what the official image of this tag uses."""
    if environment.get("PGDATA"):
        return str(PurePosixPath(environment["PGDATA"]))
    tag = re.search(r":(\d{1,4})(?!\d)", image.partition("@")[0].rpartition("/")[2])
    if tag and int(tag[1]) >= 18 and not any(mount.target == DEFAULT_PGDATA for mount in mounts):
        return f"/var/lib/postgresql/{tag[1]}/docker"
    return DEFAULT_PGDATA


def mount_holding(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that a path of a container lies on (the innermost one), or None where it lies on none."""
    holding = [mount for mount in mounts if PurePosixPath(path).is_relative_to(mount.target)]
    return max(holding, key=lambda mount: len(PurePosixPath(mount.target).parts), default=None)


def keys_mount_of(mounts: Sequence[Mount]) -> Mount | None:
    """Return the mount of the data-protection keys: at their usual place, around it, or of their name elsewhere."""
    named = [each for each in mounts if PurePosixPath(each.target).name.casefold() == "dataprotection-keys"]
    return mount_holding(KEYS_TARGET, mounts) or next(iter(named), None)


def is_anonymous(mount: Mount) -> bool:
    """Tell whether a mount is a volume nobody named: `docker compose down -v` and a prune take it away."""
    return mount.kind == "volume" and (not mount.source or re.fullmatch(r"[0-9a-f]{64}", mount.source) is not None)


def application_port_of(environment: Mapping[str, str], published: Collection[int]) -> int:
    """Return the port that the application listens on in its container.

    ASPNETCORE_URLS decides; else the one port that is published, for ASPNETCORE_HTTP_PORTS is set in the runtime's own image and
    overruled by the application's settings.
    """
    settings = {key.upper(): value for key, value in environment.items()}
    for address in settings.get("ASPNETCORE_URLS", "").split(";"):
        match = re.match(r"\s*http://[^/]*?:(\d{1,5})(?!\d)", address)
        if match:
            return int(match[1])
    targets = set(published)
    if len(targets) == 1:
        return targets.pop()
    ports = [
        word
        for word in re.split(r"[;,\s]+", settings.get("ASPNETCORE_HTTP_PORTS", ""))
        if re.fullmatch(r"[0-9]{1,5}", word)
    ]
    if ports and DEFAULT_APPLICATION_PORT not in targets:
        return int(ports[0])
    return DEFAULT_APPLICATION_PORT


def start_order(depends_on: Mapping[str, Collection[str]]) -> list[str]:
    """Order services so that each comes after those it depends on; by name where nothing decides, and in a circle.

    >>> start_order({"app": ["postgres"], "postgres": [], "adminer": ["postgres"]})
    ['postgres', 'adminer', 'app']
    """
    ordered: list[str] = []
    left = sorted(depends_on)
    while left:
        ready = [name for name in left if all(need in ordered or need not in depends_on for need in depends_on[name])]
        ordered += ready or left
        left = [name for name in left if name not in ordered]
    return ordered


def depends_on_label(label: str) -> tuple[str, ...]:
    """Read Compose's label `com.docker.compose.depends_on`.

    >>> depends_on_label("postgres:service_healthy:false,redis:service_started:true")
    ('postgres', 'redis')
    """
    return tuple(entry.partition(":")[0] for entry in label.split(",") if entry)


# --- Configuration files ---------------------------------------------------------------------------------------------


def is_configuration_mount(mount: Mount, *, data: Collection[str], is_file: bool) -> bool:
    """Tell whether a bind mount may hold configuration: not the data, keys or logs, and not the system's own places.

    `data` are the targets that hold data; what lies above them is data too. A single file is never data: some mount their
    postgresql.conf into PGDATA.
    """
    if mount.kind != "bind" or mount.host_path is None:
        return False
    target = PurePosixPath(mount.target)
    inside_data = any(PurePosixPath(place).is_relative_to(target) or target.is_relative_to(place) for place in data)
    if inside_data and not is_file:
        return False
    if target.is_relative_to(_SECRETS):
        return True
    system = any(target.is_relative_to(place) for place in _SYSTEM_PATHS)
    return not system and target.name.casefold() not in _LOG_NAMES and mount.host_path != Path("/")


def archive_names(paths: Iterable[Path], directory: Path) -> dict[Path, str]:
    """Name configuration files in an archive, each uniquely: relative to the directory, or under `outside/`.

    >>> archive_names([Path("/srv/mail/.env"), Path("/etc/mail/app.env")], Path("/srv/mail"))
    {PosixPath('/srv/mail/.env'): '.env', PosixPath('/etc/mail/app.env'): 'outside/etc/mail/app.env'}
    """
    names: dict[Path, str] = {}
    for path in paths:
        if path in names:
            continue
        name = _archive_name(path, directory)
        taken = {each.casefold() for each in names.values()}
        number, candidate = 1, name
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{name}.{number}"
        names[path] = candidate
    return names


def _archive_name(path: Path, directory: Path) -> str:
    if path.is_relative_to(directory):
        relative = path.relative_to(directory)
        if ".." not in relative.parts and relative.parts[0].casefold() not in RESERVED_NAMES:
            return _sanitised(relative.parts)
    return _sanitised([OUTSIDE, *path.parts[1:]])


def _sanitised(parts: Iterable[str]) -> str:
    """Join names so that nothing in them can climb out of an archive, end a line, or be no UTF-8 (a file's name may be any bytes)."""
    return "/".join("_" if part == ".." else re.sub(r"[\x00-\x1f\x7f\\\ud800-\udfff]", "_", part) for part in parts)


def _names(candidates: Iterable[Candidate]) -> str:
    return ", ".join(sorted(each.name for each in candidates)) or "nothing"


def _member(settings: Any, name: str) -> Any:
    if not isinstance(settings, dict):
        return None
    return next((value for key, value in settings.items() if key.casefold() == name.casefold()), None)


_JSON_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)


def plain_json(text: str) -> str:
    """Take out what .NET allows and JSON does not: comments, then trailing commas; strings stay as they are."""
    for _ in range(2):  # A comma may be trailing only once a comment behind it is gone.
        text = _JSON_PIECES.sub(lambda piece: piece[0] if piece[0].startswith('"') else " ", text)
    return text
