"""What runs inside a restored guest, as its Docker tells it: the stacks of Mail Archiver, and what is asked of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.core.errors import BackupError, NoMailArchiver, Refused
from tasks.core.plain_text import plain_line
from tasks.core.stack.connection_string import parse_connection_string
from tasks.core.stack.identify import (
    Candidate,
    application_port_of,
    choose_application,
    choose_postgres,
    connection_setting,
)
from tasks.core.stack.installation import Mount

CONTAINERS_LIMIT = 1000
# One JSON object a line, with what finding out needs and no more.
INSPECT = (
    '{"id":{{json .Id}},"name":{{json .Name}},"image":{{json .Config.Image}},"environment":{{json .Config.Env}},'
    '"labels":{{json .Config.Labels}},"state":{{json .State.Status}},"mounts":{{json .Mounts}},'
    '"networks":{{json .NetworkSettings.Networks}},"ports":{{json .Config.ExposedPorts}}}'
)
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"


@dataclass(frozen=True, slots=True)
class Inside:
    """A container inside a guest."""

    id: str
    name: str
    project: str
    state: str
    candidate: Candidate = field(repr=False)
    addresses: tuple[str, ...]
    ports: tuple[int, ...]

    @property
    def runs(self) -> bool:
        """Tell whether anything of it runs, or is about to."""
        return self.state not in ("exited", "created", "dead")


@dataclass(frozen=True, slots=True)
class InnerStack:
    """A Mail Archiver inside a guest, and its database's server."""

    project: str
    application: Inside
    postgres: Inside

    @property
    def port(self) -> int:
        """Give the port on which the application answers in its container."""
        return application_port_of(self.application.candidate.environment, self.application.ports)

    @property
    def database(self) -> str:
        """Name the database that the application's connection string names; "" where it names none."""
        setting = connection_setting(self.application.candidate.environment)
        return parse_connection_string(setting, source="the environment").database if setting else ""


def containers_in(output: str) -> list[Inside]:
    """Read what `docker inspect` printed, a container in each line."""
    lines = [each for each in output.splitlines() if each.strip()]
    if len(lines) > CONTAINERS_LIMIT:
        raise BackupError(f"the guest's Docker tells of {len(lines)} containers", hint="is that the right guest?")
    return [_container(each) for each in lines]


def stacks_in(containers: Sequence[Inside]) -> list[InnerStack]:
    """Find every Mail Archiver of a guest; raise NoMailArchiver where there is none, Refused where it is not clear which container is it."""
    found = []
    for project in sorted({each.project for each in containers}):
        mine = {each.candidate.name: each for each in containers if each.project == project}
        candidates = [each.candidate for each in mine.values()]
        try:
            application = choose_application(candidates, project=project or "(none)")
        except NoMailArchiver:
            continue
        setting = connection_setting(application.environment)
        connection = (
            parse_connection_string(setting, source=f"the environment of {application.name}") if setting else None
        )
        postgres = choose_postgres(candidates, application, connection, project=project or "(none)")
        found.append(InnerStack(project, mine[application.name], mine[postgres.name]))
    if not found:
        names = ", ".join(sorted(each.name for each in containers)) or "no container"
        raise NoMailArchiver(
            f"there is no Mail Archiver in the guest: its Docker has {names}",
            hint="is it the guest that carries it? a backup taken before it was set up has none",
        )
    return found


def status_of(answer: str) -> int | None:
    """Read the status out of the first line of an answer to a request by HTTP.

    >>> status_of("HTTP/1.1 200 OK"), status_of("curl: (7) refused")
    (200, None)
    """
    match = re.match(r"\s*HTTP/\d(?:\.\d)? (\d{3})(?!\d)", answer)
    return int(match[1]) if match else None


def _container(line: str) -> Inside:
    try:
        told = json.loads(line)
        labels: Mapping[str, Any] = told["labels"] or {}
        networks: Mapping[str, Any] = told["networks"] or {}
        addresses = tuple(str(each["IPAddress"]) for each in networks.values() if each.get("IPAddress"))
        name = str(told["name"]).removeprefix("/")
        service = str(labels.get(_SERVICE) or name)
        aliases = {str(alias) for each in networks.values() for alias in each.get("Aliases") or ()}
        pairs = (str(each).partition("=") for each in told["environment"] or ())
        candidate = Candidate(
            service, str(told["image"]), frozenset({service, name, *aliases, *addresses}), {key: value for key, _, value in pairs},
            tuple(Mount("bind" if each.get("Type") == "bind" else "volume", str(each.get("Source")), str(each["Destination"]), None) for each in told["mounts"] or ()),
        )  # fmt: skip
        ports = tuple(int(each.partition("/")[0]) for each in told["ports"] or {})
        identity = str(told["id"])
        if not re.fullmatch("[0-9a-f]{12,64}", identity) or not all(
            re.fullmatch("[0-9a-fA-F.:]{2,45}", each) for each in addresses
        ):
            raise ValueError
        return Inside(
            identity,
            plain_line(name)[:80],
            str(labels.get(_PROJECT) or ""),
            str(told["state"]),
            candidate,
            addresses,
            ports,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused(
            f"what Docker tells inside the guest cannot be understood: {plain_line(line)[:60]}",
            hint="is its Docker older than 20.10?",
        ) from None
