"""Rebuild an archive with other content under a manifest that fits its bytes: a lie that only a restore can find out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.reader import check_archive
from tasks.adapters.archive.writer import begin_archive, seal_archive, segment, written_members
from tasks.core.archive.manifest import Manifest


def rebuilt(
    archive: Path,
    repository: Path,
    change: Callable[[str, bytes], bytes] = lambda _, content: content,
    *,
    told: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> Path:
    """Write the archive anew under its own name in another repository, each member passed through `change`; the census stays the old one.

    `told` changes what the manifest says.
    """
    checked = check_archive(archive)
    assert checked.manifest is not None
    scratch = repository.with_name(repository.name + "-scratch")
    scratch.mkdir()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(scratch)], check=True)
    partial = begin_archive(repository, checked.name, checked.format)
    with segment(partial, "all") as part:
        for member in checked.members:
            content = (scratch / checked.name / member.name).read_bytes()
            part.add_bytes(member.name, change(member.name, content), mtime=datetime.now(UTC))
    manifest: Manifest = told(checked.manifest).model_copy(update={"members": written_members(partial)})
    return seal_archive(partial, manifest).path
