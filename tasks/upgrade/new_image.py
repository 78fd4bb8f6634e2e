"""What a PostgreSQL image is: asked of the image itself, in a container without any network."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace

from tasks.adapters.engine import resources
from tasks.core.stack.compatibility import Platform
from tasks.core.stack.installation import Installation, Service
from tasks.core.stack.upgrade import Layout, layout_after
from tasks.restore.directory_beside import answer_of_image, platform_in
from tasks.step import step

logger = logging.getLogger(__name__)

PULL_SECONDS = 1800.0
# Where the server's own program says, else where Debian and the official alpine image have them.
_LIST_EXTENSIONS = (
    "own=$(pg_config --sharedir 2>/dev/null);"
    " for place in ${own:-/usr/share/postgresql/${PG_MAJOR:-*} /usr/local/share/postgresql}; do for file in $place/extension/*.control;"
    ' do [ ! -e "$file" ] || echo extension $(basename "$file" .control); done; done'
)


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image of PostgreSQL: its name and id, what it is, which extensions it has, and where it keeps its data here."""

    name: str
    image_id: str
    platform: Platform
    extensions: frozenset[str]
    layout: Layout


@step(name="look at new image", run_name="look at {name}")
def look_at_image(stack: Installation, name: str, *, pgdata_set: str) -> NewImage:
    """Pull the image unless it is here, and ask it what it is; raise Refused where it cannot be had, or is no PostgreSQL."""
    if not resources.image_exists(name):
        logger.info("Pulling %s", name)
        resources.pull_image(name, timeout_seconds=PULL_SECONDS)
    facts = resources.image_facts(name)
    layout = layout_after(
        target=stack.data_mount.target, pgdata_set=pgdata_set, image_pgdata=facts.environment.get("PGDATA", "/var/lib/postgresql/data")
    )  # fmt: skip
    service = replace(stack.postgres, image=name, image_id=facts.image_id)
    asked = replace(stack, postgres=service)
    said = answer_of_image(asked, _LIST_EXTENSIONS)
    platform = platform_in(said, image=name)
    extensions = frozenset(re.findall(r"^extension ([\w-]+)$", said, re.MULTILINE))
    return NewImage(name, facts.image_id, platform, extensions, layout)


def under_new_image(stack: Installation, new: NewImage) -> Installation:
    """Give the installation as it will be with the new image."""
    image = dict(resources.image_facts(new.image_id).environment)
    kept = {name: value for name, value in stack.postgres.environment.items() if name not in image}
    service: Service = replace(
        stack.postgres, image=new.name, image_id=new.image_id, environment={**kept, **image, "PGDATA": new.layout.pgdata}
    )  # fmt: skip
    return replace(
        stack, postgres=service, pgdata=new.layout.pgdata, data_mount=replace(stack.data_mount, target=new.layout.target)
    )  # fmt: skip
