"""The mount that holds an installation's data: an upgrade makes it anew as a whole, since an image may divide it otherwise."""

from __future__ import annotations

from pathlib import Path

from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.restore.directory_beside import host_place, refuse_what_stays


def data_place(stack: Installation) -> Path:
    """Give the place of the data's mount on this host; raise Refused where only Docker reaches it, or it cannot be renamed."""
    host_place(stack)  # which says why, where it cannot be reached
    place, mount = stack.data_mount.host_path, stack.data_mount
    if place is None or not mount.source:
        raise Refused(
            f"the data lies in a volume without a name, at {mount.target}",
            hint="mount a directory or a named volume there",
        )
    refuse_what_stays(place)
    return place


def beside_data(stack: Installation) -> tuple[str, ...]:
    """Name what else lies in the mount besides the data directory."""
    place, data = stack.data_mount.host_path, stack.data_directory
    if place is None or data is None or data == place:
        return ()
    own = data.relative_to(place).parts[0]
    return tuple(sorted(path.name for path in place.iterdir() if path.name != own))
