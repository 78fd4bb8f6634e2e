"""The steps of a synthetic full backup: whose chain it is, and what its manifest says."""

from __future__ import annotations

from importlib.metadata import version

from tasks.adapters.archive.chain import is_chained
from tasks.adapters.archive.ownership import authenticity_of_archive
from tasks.adapters.archive.reader import Archive, CheckedArchive
from tasks.adapters.archive.writer import PartialArchive, written_members
from tasks.backup.archive import seal_manifest
from tasks.backup.increment import keep_list
from tasks.core.archive.manifest import MANIFEST_VERSION, Record
from tasks.core.archive.names import is_sealed
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import trust_of
from tasks.step import step


def require_own_chain(config: InstallationConfig, archive: Archive) -> Archive:
    """Give a chain back; raise Refused for a backup that is whole by itself, one that is not our own, and an encrypted one."""
    if is_sealed(archive.path.name):
        raise Refused(
            f"{archive.path.name} is encrypted: put together, its content would lie on this disk for all to read who can read that",
            hint="`backup online --full` makes a new full backup",
        )
    if not is_chained(archive):
        raise Refused(
            f"{archive.name} is whole by itself, no link of a chain",
            hint="`backup online --full` makes a new full backup",
        )
    found = authenticity_of_archive(trust_of(config), archive.path)
    if not found.counts:
        raise Refused(
            f"{archive.name} is not this installation's own ({found}): {found.reason}", hint="`adopt` signs it"
        )
    return archive


@step(name="seal archive", retries=0)
def seal_synthetic(
    config: InstallationConfig,
    installation: Installation,
    chain: CheckedArchive,
    archive: PartialArchive,
    base_manifest: bytes,
    *,
    begun: float,
) -> Record:
    """Seal what was put together under the facts of the chain's newest link: it is of the same moment, and of the same server."""
    before = chain.manifest
    assert before is not None  # a chain has one
    keep_list(config, archive.name, base_manifest)
    made_of = [*(each.name for each in before.parents), before.name]
    changes = {
        "version": MANIFEST_VERSION, "name": archive.name, "format": archive.format, "downtime_seconds": 0.0,
        "program_version": version("mailarchiver-backup"), "members": written_members(archive), "bulk": None, "parents": [], "why_full": "",
        "made_of": made_of, "origin": None,
    }  # fmt: skip
    return seal_manifest(installation, archive, before.model_copy(update=changes), begun=begun)
