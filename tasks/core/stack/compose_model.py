"""What compose files say, as frozen values, read from `docker compose config --format json`.

Compose itself does the reading (lists and maps, quotes, anchors, `${VAR:-default}`, `.env`, overrides); nothing here greps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.core.stack.installation import Mount

# Compose's own names, in its own order: the first that exists is the file, and the first override that exists is added.
FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_NAMES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
DOT_ENV = ".env"


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A file that a service's environment is read from."""

    path: Path
    required: bool = True


@dataclass(frozen=True, slots=True)
class ComposePort:
    """A port that a service publishes; `host_address` is "" for every address, `published` "" for any free port."""

    target: int
    published: str
    host_address: str


@dataclass(frozen=True, slots=True)
class ComposeService:
    """One service as the compose files describe it. `mounts` hold secrets and configs from files too.

    `is_built` tells that the image is built here (`build:`). An anonymous volume has source "", and no volume has a `host_path`: only Docker knows it.
    """

    name: str
    image: str
    container_name: str
    hostname: str
    restart: str
    environment: Mapping[str, str] = field(repr=False)
    mounts: tuple[Mount, ...]
    env_files: tuple[EnvFile, ...]
    depends_on: tuple[str, ...]
    ports: tuple[ComposePort, ...]
    aliases: tuple[str, ...]
    is_built: bool = False


@dataclass(frozen=True, slots=True)
class ComposeModel:
    """A project as its compose files describe it; `warnings` are what Compose said about them."""

    project: str
    services: tuple[ComposeService, ...]
    warnings: tuple[str, ...] = ()

    def service(self, name: str) -> ComposeService | None:
        """Return the service of this name, or None."""
        return next((each for each in self.services if each.name == name), None)


def parse_model(text: str, *, warnings: Iterable[str] = ()) -> ComposeModel:
    """Read what `docker compose config --format json` printed."""
    model = json.loads(text)
    services: dict[str, Any] = model.get("services") or {}
    return ComposeModel(
        project=model["name"],
        services=tuple(_service(name, services[name], model) for name in sorted(services)),
        warnings=tuple(warnings),
    )


def may_name_env_files(text: bytes) -> bool:
    r"""Tell whether a compose file may name env files, itself or in another one that it takes in.

    YAML writes a word otherwise than letter by letter only with a backslash (YAML 1.2, 5.7), or in UTF-16 or 32, where bytes are 0 (5.2).

    >>> may_name_env_files(b"services: {app: {image: postgres}}")
    False
    >>> may_name_env_files(b'services: {app: {"env\\u005ffile": secrets.env}}')
    True
    """
    return any(word in text for word in (b"env_file", b"include", b"extends", b"\\", b"\0"))


def with_env_files(model: ComposeModel, unresolved: str) -> ComposeModel:
    """Add the services' `env_file` entries, which Compose prints only where it has not resolved them."""
    services: dict[str, Any] = json.loads(unresolved).get("services") or {}
    return replace(
        model,
        services=tuple(
            replace(each, env_files=tuple(_env_files(services.get(each.name, {}).get("env_file"))))
            for each in model.services
        ),
    )


def _service(name: str, facts: Mapping[str, Any], model: Mapping[str, Any]) -> ComposeService:
    networks: Mapping[str, Any] = facts.get("networks") or {}
    return ComposeService(
        name=name,
        image=facts.get("image") or f"{model['name']}-{name}",
        container_name=_text(facts.get("container_name") or ""),
        hostname=_text(facts.get("hostname") or ""),
        restart=facts.get("restart") or "no",
        environment={key: _text(value) for key, value in (facts.get("environment") or {}).items() if value is not None},
        mounts=(*_mounts(facts, model), *_file_mounts(facts, model)),
        env_files=tuple(_env_files(facts.get("env_file"))),
        depends_on=tuple(sorted(facts.get("depends_on") or ())),
        ports=tuple(
            ComposePort(int(port["target"]), str(port.get("published") or ""), port.get("host_ip") or "")
            for port in facts.get("ports") or ()
        ),
        aliases=tuple(sorted({alias for each in networks.values() for alias in (each or {}).get("aliases") or ()})),
        is_built=bool(facts.get("build")),
    )


def _mounts(facts: Mapping[str, Any], model: Mapping[str, Any]) -> list[Mount]:
    volumes: Mapping[str, Any] = model.get("volumes") or {}
    mounts = []
    for entry in facts.get("volumes") or ():
        kind, source = entry["type"], _text(entry.get("source") or "")
        if kind == "volume" and source:
            source = (volumes.get(source) or {}).get("name") or source
        if kind in ("bind", "volume", "tmpfs"):
            path = Path(source) if kind == "bind" else None
            mounts.append(Mount(kind, source, _text(entry["target"]), path, bool(entry.get("read_only"))))
    mounts += [Mount("tmpfs", "", target.partition(":")[0], None) for target in facts.get("tmpfs") or ()]
    return mounts


def _file_mounts(facts: Mapping[str, Any], model: Mapping[str, Any]) -> list[Mount]:
    """Give the secrets and configs that come from files: Compose bind-mounts them."""
    mounts = []
    for kind, default_directory in (("secrets", "/run/secrets/"), ("configs", "/")):
        definitions: Mapping[str, Any] = model.get(kind) or {}
        for entry in facts.get(kind) or ():
            path = _text((definitions.get(entry["source"]) or {}).get("file") or "")
            target = entry.get("target") or entry["source"]
            if path:
                inside = target if target.startswith("/") else default_directory + target
                mounts.append(Mount("bind", path, inside, Path(path), read_only=True))
    return mounts


def _env_files(entries: Iterable[Any] | None) -> list[EnvFile]:
    files = []
    for entry in entries or ():
        if isinstance(entry, str):
            files.append(EnvFile(Path(_text(entry))))
        else:
            files.append(EnvFile(Path(_text(entry["path"])), bool(entry.get("required", True))))
    return files


def _text(value: object) -> str:
    """Undo the one escape of Compose's output: `$$` means `$`."""
    return str(value).replace("$$", "$")


_DOT_ENV_LINE = re.compile(
    r"""^\s*(?:export\s+)?(?P<key>[A-Za-z_][\w.]*)\s*=\s*
        (?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<plain>.*?))\s*(?:\s\#.*)?$""",
    re.VERBOSE,
)


def parse_dot_env(text: str) -> dict[str, str]:
    """Read the plain settings of a `.env` file (no variables inside variables): enough for Compose's own COMPOSE_* names.

    >>> parse_dot_env('# mine\\nexport COMPOSE_FILE="a.yml:b.yml"  # both\\n')
    {'COMPOSE_FILE': 'a.yml:b.yml'}
    """
    settings: dict[str, str] = {}
    for line in text.removeprefix("\ufeff").splitlines():
        match = _DOT_ENV_LINE.match(line)
        if match:
            settings[match["key"]] = match["single"] or match["double"] or match["plain"] or ""
    return settings


def choose_files(names: Iterable[str], settings: Mapping[str, str]) -> list[str]:
    """Choose the compose files as Compose does, from the names in the directory and its `.env` settings.

    COMPOSE_FILE wins (its entries are returned as they stand there); else the first of the usual names and the first override.
    """
    if settings.get("COMPOSE_FILE"):
        return settings["COMPOSE_FILE"].split(settings.get("COMPOSE_PATH_SEPARATOR") or ":")
    present = set(names)
    chosen = [name for name in FILE_NAMES if name in present][:1]
    return chosen + [name for name in OVERRIDE_NAMES if name in present][:1] if chosen else []
