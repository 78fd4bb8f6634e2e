"""Signing costs less than 1 % of a backup."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tasks.adapters.archive.identity import read_identity, require_key
from tasks.adapters.archive.ownership import next_place, note_made, note_sealed
from tasks.core.archive.authenticity import sign_manifest, sign_record
from tasks.core.archive.manifest import Census, Manifest, Member, Record, TableCensus
from tasks.core.archive.signatures import public_key
from tests.integration.archives import make_archive

TRIES = 10


@pytest.mark.parametrize(
    ("files", "shortest_seconds"), [pytest.param(20, 2.0, id="hot"), pytest.param(2000, 4.0, id="complete")]
)
def test_signing_takes_less_than_a_hundredth_of_the_shortest_backup(
    tmp_path: Path, files: int, shortest_seconds: float
) -> None:
    """The key, the list of what was made, manifest and record, beside forty backups. The shortest is of 5 MB of mail, on two idle cores."""
    repository = tmp_path / "backups"
    for night in range(1, 41):
        make_archive(repository, name=f"mailarchiver-backup-20260101-0000{night:02}")
    record = make_archive(repository).record
    digest = "0" * 64
    manifest = record.manifest.model_copy(
        update={
            "members": [
                Member(name=f"postgres-data/base/16384/{each}", bytes=8192, sha256=digest) for each in range(files)
            ],
            "census": Census(
                tables={f"mail_archiver.t{each}": TableCensus(rows=9, digest=digest) for each in range(60)},
                sequences={},
                large_objects=TableCensus(rows=0, digest=digest),
                schema_objects={f"INDEX mail_archiver.i{each}": digest for each in range(200)},
            ),
        }
    )
    spent = min(seconds_to_sign(tmp_path, repository, record, manifest) for _ in range(TRIES))
    print(f"signing takes {1000 * spent:.1f} ms, {spent / shortest_seconds:.2%} of a backup")

    # On cores that others use too, the same work takes more of a core's time, and so does a backup.
    crowded = min(2.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
    assert spent < shortest_seconds / 100 * crowded


def seconds_to_sign(directory: Path, repository: Path, record: Record, manifest: Manifest) -> float:
    """Do what a backup does for its signature, and tell how much of a core's time it took."""
    begun = time.process_time()
    key = require_key("main", directory, project="mail", system_identifier="7")
    place = read_identity("main", directory).place
    made, previous = next_place(public_key(key), place, repository)
    signed = sign_manifest(manifest, key, sequence=made.sequence + 1, previous=previous)
    note_made(place, repository, made, signed, state="sealing")
    sign_record(record.model_copy(update={"manifest": signed}), key)
    note_sealed(place, repository, signed.name)
    return time.process_time() - begun
