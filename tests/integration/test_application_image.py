"""Which image a name stands for is asked of its registry, and fetched without moving the name on this host."""

from __future__ import annotations

import subprocess

import pytest

from tasks.adapters.engine import resources
from tasks.core.errors import Refused
from tasks.core.stack.application_upgrade import VERSION_LABEL
from tasks.upgrade.application_image import look_at_application_image, require_image
from tests.stack.registry import Registry, registry

pytestmark = pytest.mark.docker


def test_a_name_is_resolved_and_its_image_fetched_by_digest(docker_engine: None) -> None:
    """Nobody's `docker compose up` shall start what was not rehearsed; and an old image that was pruned is fetched again."""
    with registry() as held:
        name = f"{held.repository}:latest"
        first = held.push("latest", {VERSION_LABEL: "2608.1"})
        try:
            old = look_at_application_image(name)
            assert (old.digest, old.version, resources.image_exists(name)) == (first, "2608.1", False)
            resources.tag_image(old.image_id, name)
            second = held.push("latest", {VERSION_LABEL: "2609.1"})

            new = look_at_application_image(name)

            assert (new.digest, new.version) == (second, "2609.1")
            assert resources.image_facts(name).image_id == old.image_id
            remove(held)
            assert not resources.image_exists(old.image_id)
            require_image(name, old.image_id, first)
            assert resources.image_exists(old.image_id)
            with pytest.raises(Refused, match="is not on this machine any more"):
                require_image(name, f"sha256:{'0' * 64}", "")
            with pytest.raises(Refused, match="cannot pull"):
                look_at_application_image(f"{held.repository}:2610.1")
        finally:
            remove(held)


def remove(held: Registry) -> None:
    """Take away what came from the registry."""
    found = subprocess.run(
        ["docker", "images", "--quiet", "--no-trunc", held.repository],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    for each in set(found.stdout.split()):
        subprocess.run(["docker", "rmi", "--force", each], capture_output=True, timeout=30, check=True)
