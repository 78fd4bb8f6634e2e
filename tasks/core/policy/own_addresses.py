"""Whether a request was meant for Prefect's server, and came from its own pages, by its headers Host and Origin.

A browser sends both and lets no page change them. A page whose name was pointed at this machine (DNS rebinding) betrays
itself by Host, any other page by Origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tasks.core.errors import UsageError
from tasks.core.policy.plain_input import shown

LOOPBACK = ("127.0.0.1", "localhost")
# What a server may listen on and no client can ask for.
WILDCARDS = ("0.0.0.0", "::", "")
_DEFAULT_PORTS = {"http": 80, "https": 443}
ADDRESS_VARIABLE = "PREFECT_UI_API_URL"


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """What a client may call the server in Host, and which pages may ask it in Origin; all in lower case."""

    hosts: frozenset[str]
    origins: frozenset[str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered: the status code, and a sentence."""

    status: int
    text: str


def asked_at(host: str) -> str:
    """Give the name in an address by which this machine's clients reach a server that listens on `host`.

    >>> asked_at("0.0.0.0"), asked_at("::1"), asked_at("backups.lan")
    ('127.0.0.1', '[::1]', 'backups.lan')

    """
    if host in WILDCARDS:
        return LOOPBACK[0]
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def own_addresses(host: str, port: int, interface: str | None) -> OwnAddresses:
    """Give the addresses of a server on `host` and `port`, whose UI is shown at `interface` (PREFECT_UI_API_URL).

    Raise UsageError where `interface` is no http address.

    >>> sorted(own_addresses("127.0.0.1", 4200, "https://backups.example.org/api").hosts)
    ['127.0.0.1:4200', 'backups.example.org', 'backups.example.org:443', 'localhost:4200']

    """
    names = {asked_at(host).lower(), *LOOPBACK}
    served = {("http", name, port) for name in names}
    if interface:
        scheme, name, public_port = _parts(interface)
        served |= {(scheme, each, public_port) for each in ({name, *LOOPBACK} if name in LOOPBACK else {name})}
    hosts = {text for place in served for text in _written(*place)}
    origins = {f"{scheme}://{text}" for scheme, name, number in served for text in _written(scheme, name, number)}
    return OwnAddresses(frozenset(hosts), frozenset(origins))


def refusal(own: OwnAddresses, hosts: Sequence[str], origins: Sequence[str]) -> Refusal | None:
    """Say why a request with these Hosts and Origins is refused; None where it is not. Programs send no Origin."""
    if len(hosts) != 1 or hosts[0].lower() not in own.hosts:
        return Refusal(
            400,
            f"this server is not {shown(', '.join(hosts))}\nHINT: ask for {', '.join(sorted(own.hosts))}; behind a reverse proxy "
            f"that passes Host on, start it with {ADDRESS_VARIABLE}=https://NAME/api",
        )
    for origin in origins:
        if origin.lower() not in own.origins:
            return Refusal(
                403,
                f"a page of {shown(origin)} may not ask this server\nHINT: open the UI itself, at {', '.join(sorted(own.origins))}",
            )
    return None


def _parts(address: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(address)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        name = parts.hostname or ""
    except (ValueError, KeyError):
        name = ""
    if not name:
        raise UsageError(
            f"{ADDRESS_VARIABLE}={shown(address)} is no http address", hint="such as https://backups.example.org/api"
        )
    return parts.scheme, f"[{name}]" if ":" in name else name, port


def _written(scheme: str, name: str, port: int) -> list[str]:
    """Give the ways in which Host and Origin name a place: the port may be left out where it is the scheme's own."""
    return [f"{name}:{port}", name] if port == _DEFAULT_PORTS[scheme] else [f"{name}:{port}"]
