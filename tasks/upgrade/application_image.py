"""Another image of the application: which one a name stands for now, fetched without changing what the name stands for here."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from tasks.adapters.engine import resources
from tasks.core.errors import Refused
from tasks.core.stack.application_upgrade import version_of
from tasks.core.stack.upgrade import repository_of
from tasks.step import step
from tasks.upgrade.new_image import PULL_SECONDS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApplicationImage:
    """An image of the application: its name, id, digest ("" where no registry told one), and version ("" where none is said)."""

    name: str
    image_id: str
    digest: str
    version: str

    @property
    def shown(self) -> str:
        """Name it for people, with what it stands for."""
        return f"{self.name} ({self.digest or self.image_id})"


@step(name="look at new image", run_name="look at {name}")
def look_at_application_image(name: str) -> ApplicationImage:
    """Ask the registry which image a name stands for, and fetch that one by its digest; else take the one that is here.

    A tag of this host goes on meaning what it did: nobody's `docker compose up` shall start the new version before
    it was rehearsed. Raise Refused where no such image can be had.
    """
    digest = name.partition("@")[2] or resources.registry_digest(name) or ""
    exact = f"{repository_of(name)}@{digest}" if digest else name
    if not resources.image_exists(exact):
        logger.info("Pulling %s", exact)
        resources.pull_image(exact, timeout_seconds=PULL_SECONDS)
    return _image(name, exact, digest)


def running_image(name: str, image_id: str, digest: str | None) -> ApplicationImage:
    """Give the image that the application runs, by its id."""
    return _image(name, image_id, digest or "")


def require_image(name: str, image_id: str, digest: str) -> None:
    """See that an image is on this host, and fetch it by its digest where it is not; raise Refused where it cannot be had any more."""
    if resources.image_exists(image_id):
        return
    exact = f"{repository_of(name)}@{digest}"
    if digest:
        resources.pull_image(exact, timeout_seconds=PULL_SECONDS)
    if not digest or resources.image_facts(exact).image_id != image_id:
        raise Refused(
            f"the image {name} ({digest or image_id}) that the application ran before is not on this machine any more",
            hint="load it again (docker pull, docker load), and try again",
        )


def _image(name: str, exact: str, digest: str) -> ApplicationImage:
    facts = resources.image_facts(exact)
    return ApplicationImage(name, facts.image_id, digest, version_of(name, facts.labels))
