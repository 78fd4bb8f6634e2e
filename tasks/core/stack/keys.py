"""What an archive should hold of the application's data-protection keys."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.core.archive.manifest import Member

KEY_NAME = re.compile(r"(?:.*/)?key-[^/]+\.xml")


def keys_warnings(copied: Sequence[Member], left_out: Sequence[str], *, place: str) -> list[str]:
    """Say what is wrong with the keys that were copied from `place`; nothing where there is at least one and none is empty or left out."""
    keys = [each for each in copied if KEY_NAME.fullmatch(each.name)]
    found = [f"the data-protection key {each.name} is empty" for each in keys if each.bytes == 0]
    found += list(left_out)
    if not any(each.bytes for each in keys):
        files = f"{len(copied)} other files" if copied else "nothing"
        found.append(
            f"there is no data-protection key: {place} holds {files}; with this archive alone, users' sessions and what the keys protect are lost"
        )
    return found
