"""How containers differ from compose files that were edited since, without showing a value that may be a secret."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tasks.core.stack.compose_model import ComposeService
from tasks.core.stack.installation import Mount

RECREATE = "`docker compose up -d` would recreate it"


@dataclass(frozen=True, slots=True)
class Made:
    """A container as it was made; `config_hash` is Compose's own digest of the service it was made from, by version `compose_version`."""

    image: str
    environment: Mapping[str, str] = field(repr=False)
    mounts: tuple[Mount, ...]
    ports: Collection[tuple[int, int]]
    config_hash: str
    compose_version: str


def drift_of(
    name: str, made: Made | None, described: ComposeService | None, *, hash_now: str, version_now: str
) -> list[str]:
    """Say how a service's container differs from what the files say now; nothing where it does not.

    Where nothing that is looked at differs, Compose's digest still tells that something does; it is asked only when the
    same version of Compose made the container, for each version digests in its own way.
    """
    if described is None:
        return [f"service {name} has a container, and is not in the compose files any more"] if made is not None else []
    if made is None:
        return []
    found = []
    if not made.image.startswith("sha256:") and _full(made.image) != _full(described.image):
        found.append(f"runs the image {made.image}, the compose file says {described.image}")
    changed = sorted(key for key, value in described.environment.items() if made.environment.get(key) != value)
    if changed:
        found.append(f"has other values than the compose file for {', '.join(changed)}")
    now, then = _places(described.mounts), _places(made.mounts)
    for target in sorted(now.keys() | then.keys()):
        if target not in then:
            found.append(f"does not mount {now[target] or 'a volume'} at {target}, the compose file does")
        elif target not in now and then[target]:
            found.append(f"mounts {then[target]} at {target}, the compose file does not")
        elif target in now and now[target] and then[target] != now[target]:
            found.append(f"mounts {then[target]} at {target}, the compose file says {now[target]}")
    ports = {(port.target, int(port.published)) for port in described.ports if port.published.isdigit()}
    if ports - set(made.ports):
        found.append(
            f"does not publish {', '.join(f'{ours} as {theirs}' for ours, theirs in sorted(ports - set(made.ports)))}"
        )
    digest_differs = bool(hash_now and made.config_hash) and hash_now != made.config_hash
    if not found and digest_differs and made.compose_version == version_now:
        found.append(f"was made from another version of its part of the compose file ({RECREATE})")
    return [f"service {name} {what}" for what in found]


def _places(mounts: Collection[Mount]) -> dict[str, str]:
    """Map where something is mounted to what: "" for what has no name of its own (tmpfs, volumes without a name)."""
    return {
        mount.target.rstrip("/") or "/": ""
        if mount.kind == "tmpfs" or (mount.kind == "volume" and len(mount.source) == 64)
        else mount.source
        for mount in mounts
    }


def _full(image: str) -> str:
    name = image.removeprefix("docker.io/").removeprefix("library/")
    return name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest"
