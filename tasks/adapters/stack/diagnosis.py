"""Look up what `doctor` needs to know besides the installation itself."""

from __future__ import annotations

from pathlib import Path

from tasks.adapters.engine import containers
from tasks.adapters.host.outside_files import DATA_FILE, UnfitFile, read_outside
from tasks.adapters.stack.data_users import other_users
from tasks.adapters.stack.discovery import configuration_problems
from tasks.adapters.stack.drift import configuration_drift
from tasks.core.stack.diagnosis import Problem, Seen, find_problems
from tasks.core.stack.installation import Installation

__all__ = ["Problem", "problems"]


def problems(installation: Installation) -> list[Problem]:
    """List what may be wrong with an installation, touching nothing."""
    container = containers.container(installation.postgres.container_id) if installation.postgres.container_id else None
    published = [
        f"{port.host_address}:{port.host_port}"
        for port in (container.published_ports if container else ())
        if port.host_address not in ("127.0.0.1", "::1")
    ]
    others = other_users(installation)
    compose_error, configuration = configuration_problems(installation)
    seen = Seen(
        drift=configuration_drift(installation),
        version_file=_version_file(installation),
        image_major=installation.postgres.environment.get("PG_MAJOR", ""),
        published=published,
        other_users=others.in_the_way,
        around=others.around,
        compose_error=compose_error,
        # Compose says so of every file that was written for its first version, and nothing depends on it.
        configuration=[each for each in configuration if "`version` is obsolete" not in each],
    )
    return find_problems(installation, seen)


def _version_file(installation: Installation) -> str:
    mount = installation.data_mount
    if mount.host_path is None:
        return ""
    try:
        place = mount.host_path / Path(installation.pgdata).relative_to(mount.target)
        return read_outside(place / "PG_VERSION", DATA_FILE)[0].decode().strip()
    except (FileNotFoundError, UnfitFile, ValueError):
        return ""
