"""The files that an upgrade kept: all there before anything is stopped, and with what was edited since."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tasks.adapters.host.files import write_atomically
from tasks.adapters.host.own_directories import exists
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.upgrade.configuration import new_configuration
from tasks.upgrade.files import beside, digest_of
from tasks.upgrade.kept_list import KeptUpgrade, write_upgrade


def require_files(kept: KeptUpgrade) -> None:
    """Raise Refused, before anything is stopped, where a file that an upgrade put aside is gone or changed."""
    for name, sha256 in kept.files.items():
        place = beside(Path(name), kept.mark)
        if not exists(place) or digest_of(place) != sha256:
            raise Refused(
                f"{place} is gone or changed, which an upgrade had kept",
                hint=f"bring it back; or write into {name} what it was, with the image {kept.from_image}",
            )


def take_later_edits(stack: Installation, kept: KeptUpgrade, service: str) -> None:
    """Where a file was edited since the upgrade, go back to that text with the former image of the service in it."""
    edited = [Path(name) for name, sha256 in kept.brought.items() if digest_of(Path(name)) != sha256]
    if not edited:
        return
    texts = {each.path: each for each in new_configuration(stack, service, kept.from_image, target=kept.target)}
    for path in edited:
        if path not in texts:
            raise Refused(
                f"{path} was edited since the upgrade, and how it said {kept.to_image} is gone",
                hint=f"bring back what the upgrade wrote there, or see {beside(path, kept.mark)}",
            )
        write_atomically(beside(path, kept.mark), texts[path].text.encode(), like=path.stat())
    now = {name: digest_of(beside(Path(name), kept.mark)) for name in kept.files}
    write_upgrade(stack.directory, replace(kept, files=now))
