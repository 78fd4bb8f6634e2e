"""Retention on a real directory (P4): what is there decides, not what it is called or when it was written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.adapters.archive.identity import require_key
from tasks.adapters.archive.repository import list_backups
from tasks.core.archive.authenticity import sign_manifest, sign_record
from tasks.core.archive.manifest import DatabaseFacts, Manifest, Record, Verification
from tasks.core.archive.signatures import new_private_key
from tasks.core.policy.settings import InstallationSettings, Retention
from tasks.oversight.pruning import plan_for, remove_planned
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import look_at

STRANGER = new_private_key()
NOW = datetime(2026, 6, 30, 4, 0, tzinfo=UTC)
POLICY = Retention(keep_last=2, minimum_verified=1)
DATABASE = DatabaseFacts(
    name="m", owner="m", encoding="UTF8", collation="C", character_type="C", server_version="17.1", server_major=17
)


@dataclass(frozen=True)
class Lying:
    """A file as it lies in the repository, and what is true or forged of it."""

    night: int
    kind: str
    verified: bool
    written_days_ago: int

    @property
    def name(self) -> str:
        """Give the backup's name."""
        return f"mailarchiver-backup-{NOW - timedelta(days=self.night):%Y%m%d-%H%M%S}"

    @property
    def removable(self) -> bool:
        """Tell whether this program made it for the installation main, and it still is what its record says."""
        return self.kind == "ours"


def put(repository: Path, lying: Lying, key: bytes) -> Path:
    """Write an archive of ten bytes with its record, or what looks like that."""
    path = repository / f"{lying.name}.tar.gz"
    created = NOW - timedelta(days=lying.night)
    manifest = Manifest(
        version=1, name=lying.name, method="hot", format="guide", project="p", created_at=created, database=DATABASE,
        installation="other" if lying.kind == "of another installation" else "main", images=[], members=[],
    )  # fmt: skip
    verdict = Verification(
        verdict="verified", at=created, archive_sha256="a" * 64, rows=9, tables=1, attachments=0, differences=[],
        restore_seconds=1, seconds=1,
    )  # fmt: skip
    record = Record(
        file=path.name, bytes=10, sha256="a" * 64, seconds=1, manifest=manifest, verification=verdict if lying.verified else None
    )  # fmt: skip
    about = sign_manifest(
        manifest, STRANGER if lying.kind == "signed by another" else key, sequence=100 - lying.night, previous=""
    )
    record = sign_record(
        record.model_copy(update={"manifest": about}), STRANGER if lying.kind == "signed by another" else key
    )
    if lying.kind == "unsigned":
        record = record.model_copy(update={"signature": None})
    if lying.kind == "forged":
        record = record.model_copy(update={"seconds": 2, "verification": verdict})
    if lying.kind == "a link":
        target = repository.parent / f"{lying.name}.elsewhere"
        target.write_bytes(b"somebody's")
        path.symlink_to(target)
    elif lying.kind == "a directory":
        path.mkdir()
    else:
        path.write_bytes(b"ten bytes." + (b" and more" if lying.kind == "altered" else b""))
    if lying.kind == "with a record cut short":
        (repository / f"{lying.name}.manifest.json").write_text(record.model_dump_json()[:100])
    elif lying.kind != "without a record":
        (repository / f"{lying.name}.manifest.json").write_text(record.model_dump_json())
    moment = (NOW - timedelta(days=lying.written_days_ago)).timestamp()
    os.utime(path, (moment, moment), follow_symlinks=False)
    return path


def prune(repository: Path) -> set[Path]:
    """Plan and remove, as the flow does; return what is gone of the archives."""
    config = InstallationConfig(
        "main", InstallationSettings.model_construct(directory=repository, repository=repository, retention=POLICY)
    )
    before = set(repository.rglob("*.tar.gz"))
    own = look_at(config, list_backups(repository), now=NOW)
    remove_planned(config, plan_for(config, own, [], now=NOW), now=NOW)
    return before - set(repository.rglob("*.tar.gz"))


lying = st.builds(
    Lying,
    night=st.integers(1, 40),
    kind=st.sampled_from(
        ["ours", "ours", "ours", "ours", "of another installation", "signed by another", "unsigned", "forged", "altered", "without a record", "with a record cut short",
         "a link", "a directory"]
    ),
    verified=st.booleans(),
    written_days_ago=st.integers(-400, 400),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(found=st.lists(lying, max_size=12, unique_by=lambda each: each.night))
def test_only_what_we_made_for_this_installation_goes_and_age_is_the_manifests(found: list[Lying]) -> None:
    """Whatever lies about and whenever files were written: foreign, forged and altered ones stay; the newest verified stays."""
    with TemporaryDirectory() as place:
        repository = Path(place) / "backups"
        deeper = repository / "deeper"
        deeper.mkdir(parents=True)
        key = require_key("main", repository, project="p", system_identifier="7")
        paths = {each: put(repository, each, key) for each in found}
        elsewhere = put(deeper, Lying(39, "ours", verified=True, written_days_ago=0), key)

        gone = prune(repository)

        ours = sorted((each for each in found if each.removable), key=lambda each: each.night)
        kept = set(ours[:2]) | set([each for each in ours if each.verified][:1])
        expected = set(ours) - kept if any(each.verified for each in ours) else set()
        assert gone == {paths[each] for each in expected}
        assert elsewhere.exists()
        assert all((repository.parent / f"{each.name}.elsewhere").exists() for each in found if each.kind == "a link")
        for each in expected:
            assert not (repository / f"{each.name}.manifest.json").exists()
