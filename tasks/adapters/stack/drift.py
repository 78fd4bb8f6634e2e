"""Compare the containers of an installation with its compose files as they are now."""

from __future__ import annotations

from tasks.adapters.engine.compose import compose_hashes, compose_version
from tasks.adapters.engine.containers import Container
from tasks.adapters.engine.labels import HASH_LABEL, VERSION_LABEL
from tasks.adapters.stack.find_stack import find_stack
from tasks.core.errors import BackupError
from tasks.core.stack.drift import Made, drift_of
from tasks.core.stack.installation import Installation


def configuration_drift(installation: Installation) -> list[str]:
    """Say how the containers differ from an edited compose file; where that cannot be found out, say that."""
    try:
        stack = find_stack(installation.directory, project=installation.project)
        if stack.model is None:
            return [f"the containers cannot be compared with the compose files: {stack.model_error}"]
        hashes = compose_hashes(stack.directory, stack.compose_files, stack.project, env_files=stack.env_files)
        version = compose_version()
    except BackupError as error:
        return [f"the containers cannot be compared with the compose files: {error.message}"]
    described = {each.name: each for each in stack.model.services}
    newest = {name: max(several, key=lambda each: each.created_at) for name, several in stack.containers.items()}
    return [
        difference
        for name in sorted(described.keys() | newest.keys())
        for difference in drift_of(
            name,
            _made(newest[name]) if name in newest else None,
            described.get(name),
            hash_now=hashes.get(name, ""),
            version_now=version,
        )
    ]


def _made(container: Container) -> Made:
    return Made(
        image=container.image,
        environment=container.environment,
        mounts=container.mounts,
        ports={(port.container_port, port.host_port) for port in container.published_ports},
        config_hash=container.labels.get(HASH_LABEL, ""),
        compose_version=container.labels.get(VERSION_LABEL, ""),
    )
