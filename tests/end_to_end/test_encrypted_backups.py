"""P13, P23: encrypted to public keys, proven, restored with the key, and opened by `age` and `tar` alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml

from tasks.adapters.archive.open_keys import IDENTITY_VARIABLE
from tasks.adapters.archive.reader import check_archive
from tasks.adapters.host.memory_place import MEMORY_VARIABLE
from tests.cli import PROGRAM, run_program, start_program
from tests.content import content
from tests.plaintext import LEFT as CANARY
from tests.plaintext import ROW, Disk, Watch, disk, hits_in, pieces_of, plant, watching
from tests.settings import ALL_RISKS, write_settings
from tests.stack.engine import container_names, engine
from tests.stack.stack import Stack, create_stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

# What SECURITY.md and the recovery sheet tell people to type.
SHELL = """
set -e
tar -xf "$1.tar.gz.age.tar"
for part in "$1".tar.gz.age/*.age; do age -d -i "$2" "$part"; done > "$1.tar.gz"
tar -xzf "$1.tar.gz"
"""


@dataclass(frozen=True)
class Sealing:
    """A stack whose settings ask for encryption, and the key that nobody but its owner has."""

    stack: Stack
    settings: Path
    repository: Path
    identity: Path
    memory: Path
    disk: Disk
    watch: Watch

    def run(self, *words: str) -> tuple[int, Any, str]:
        """Run a command as its operator does; give its exit code, its JSON and what it told people."""
        code, out, err = run_program([PROGRAM, *words, "--settings", str(self.settings), "--json"])
        return code, json.loads(out) if out.strip() else None, err

    def must(self, *words: str) -> Any:
        """Run a command that has to succeed."""
        code, value, err = self.run(*words)
        assert code == 0, f"{value} {err}"
        return value


@pytest.fixture(scope="module")
def sealing(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealing]:
    """Lend a small stack that is backed up encrypted, on a host with a place in memory for keys, and a disk that is watched all the time."""
    place = tmp_path_factory.mktemp("sealed")
    stack = create_stack(place / "stack", megabytes=1)
    plant(stack.psql)
    (stack.directory / "data-protection-keys" / "key-canary.xml").write_text(f"<key>{CANARY}</key>")
    key = pyrage.x25519.Identity.generate()
    identity = place / "identity"
    identity.write_text(f"# recovery key\n{key}\n")
    identity.chmod(0o600)
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory, pytest.MonkeyPatch.context() as patch, disk(place / "disk", 256) as own,
    ):  # fmt: skip
        repository, keys = own.place / "backups", Path(memory) / "keys"
        main = {
            "directory": stack.directory,
            "repository": repository,
            "encryption": {"recipients": [str(key.to_public())]},
            "accept_risks": ALL_RISKS,
        }
        settings = write_settings(place / "settings.yaml", {"main": main})
        own.require_sight()
        (own.place / "tmp").mkdir()
        patch.setenv("TMPDIR", str(own.place / "tmp"))
        patch.setenv(MEMORY_VARIABLE, str(keys))

        def places() -> list[Path]:
            return [
                own.place,
                *tmp_path_factory.getbasetemp().glob("state*"),
                *Path("/tmp").glob("mailarchiver-backup-records-*"),
            ]

        with watching(places, memory=keys, engine_root=Path(engine().info()["DockerRootDir"])) as watch:
            yield Sealing(stack, settings, repository, identity, keys, own, watch)
    stack.destroy()


@pytest.fixture(scope="module")
def backup(sealing: Sealing) -> dict[str, Any]:
    made: dict[str, Any] = sealing.must("backup", "hot")
    return made


def test_it_is_listed_and_checked_without_a_key(sealing: Sealing, backup: dict[str, Any]) -> None:
    """The record is readable, the file is compared with it, and the answer claims no more than that."""
    (listed,) = sealing.must("list")
    assert (listed["name"], listed["encrypted"], listed["authenticity"]) == (backup["name"], True, "authentic")
    checked = sealing.must("check", "latest")
    assert (checked["content_read"], checked["sha256"]) == (False, backup["sha256"])
    seen = sealing.must("doctor")["encryption"]
    assert seen["verifiable_here"] is True
    by_path = ["--directory", str(sealing.stack.directory), "--repository", str(sealing.repository)]
    code, by_its_path, _ = sealing.run("doctor", *by_path)
    assert (code, by_its_path["encryption"]["recipients"]) == (1, seen["recipients"])  # no settings accept anything
    code, out, _ = run_program([PROGRAM, "check", "latest", "--settings", str(sealing.settings)])
    assert code == 0
    assert "sealed: intact, content not read" in out
    assert sealing.must("status")["newest"] == Path(backup["archive"]).name


def test_keys_open_it_and_others_do_not(sealing: Sealing, backup: dict[str, Any], tmp_path: Path) -> None:
    """By option or environment; a wrong key, a file that others read, and a locked one are told apart, and nothing is touched."""
    with_key = ("--identity", str(sealing.identity))
    assert sealing.must("check", "latest", *with_key)["content_read"] is True
    assert [each["opens"] for each in sealing.must("list", *with_key)] == [True]
    code, _, err = run_with(sealing, {IDENTITY_VARIABLE: str(sealing.identity)}, "check", "latest")
    assert code == 0, err
    wrong = tmp_path / "wrong"
    wrong.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    wrong.chmod(0o600)
    code, value, _ = sealing.run("check", "latest", "--identity", str(wrong))
    assert (code, "no key that was given opens it" in value["error"]) == (1, True)
    assert [each["opens"] for each in sealing.must("list", "--identity", str(wrong))] == [False]
    wrong.chmod(0o644)
    code, value, _ = sealing.run("restore", "latest", "--yes", "--identity", str(wrong))
    assert (code, "open to others" in value["error"]) == (2, True)
    wrong.write_bytes(pyrage.passphrase.encrypt(b"x", "secret"))
    wrong.chmod(0o600)
    code, value, _ = sealing.run("restore", "latest", "--yes", "--identity", str(wrong))
    assert (code, "passphrase" in value["error"]) == (2, True)
    code, value, _ = sealing.run("restore", "latest", "--yes")
    assert (code, "no key is at hand" in value["error"], "--identity" in value["hint"]) == (1, True, True)


def run_with(sealing: Sealing, environment: dict[str, str], *words: str) -> tuple[int, str, str]:
    """Run a command with more in its environment."""
    return run_program([PROGRAM, *words, "--settings", str(sealing.settings), "--json"], **environment)


def test_it_is_proven_though_sealed_once(sealing: Sealing, backup: dict[str, Any], state_directory: Path) -> None:
    """P23: by the key made for this one verification, which is gone afterwards; then nothing here opens the archive, and that is no verdict."""
    (key,) = sealing.memory.iterdir()
    assert b"AGE-SECRET-KEY" in key.read_bytes()
    verdict = sealing.must("verify", "latest")
    assert (verdict["verdict"], verdict["opened_with"]) == ("verified", "verification key")
    assert list(sealing.memory.iterdir()) == []
    assert _holding_canary(sealing.repository, state_directory) == []
    code, told, _ = sealing.run("verify", "latest")
    assert (code, told["verdict"]) == (1, "not verifiable")
    (listed,) = sealing.must("list")
    assert listed["verified"] is True
    assert "verification" not in {each["kind"] for each in sealing.must("status")["problems"]}
    page = (sealing.repository / "report-main.html").read_text()
    assert "verified though sealed" in page


def test_a_killed_backup_leaves_neither_plaintext_nor_key(sealing: Sealing, state_directory: Path) -> None:
    """What lies on the disk at any moment is encrypted; the next run takes the key of the dead one away."""
    before = set(sealing.repository.iterdir())
    child = start_program([PROGRAM, "backup", "hot", "--settings", str(sealing.settings), "--json"])
    try:
        wait_until(lambda: list(sealing.repository.glob("*.partial")), 60, "no archive was begun")
        wait_until(lambda: sealing.memory.is_dir() and list(sealing.memory.iterdir()), 10, "no key was kept")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    assert _holding_canary(sealing.repository, state_directory) == []
    sealing.must("prune")
    assert list(sealing.memory.iterdir()) == []
    assert {path for path in sealing.repository.iterdir() if "report" not in path.name} <= before


def _holding_canary(*places: Path) -> list[str]:
    """Name the files below these places in which the canary stands, plainly or compressed."""
    found = []
    for place in places:
        for path in [each for each in place.rglob("*") if each.is_file()]:
            content = path.read_bytes()
            if CANARY.encode() in content or b"\x1f\x8b\x08\x04\0\0\0\0" in content:
                found.append(str(path))
    return found


def test_it_is_verified_and_restored_with_the_key(
    sealing: Sealing, backup: dict[str, Any], state_directory: Path
) -> None:
    """The drill of the recovery key is noted. The restored bytes are proven as those of a plain archive are, and the mail comes back."""
    before = content(sealing.stack)
    with_key = ("--identity", str(sealing.identity))
    code, value, _ = sealing.run("verify", "latest", "--with-recovery-key")
    assert (code, "no recovery key was given" in value["error"]) == (2, True)
    verdict = sealing.must("verify", "latest", "--with-recovery-key", *with_key)
    assert (verdict["verdict"], verdict["opened_with"]) == ("verified", "recovery key")
    drill = json.loads((state_directory / "drills" / "main.json").read_text())
    assert drill["backup"] == Path(backup["archive"]).name
    drill["drilled_at"] = "2020-02-29T00:00:00+00:00"
    (state_directory / "drills" / "main.json").write_text(json.dumps(drill))
    code, told, _ = sealing.run("status")
    overdue = [each["text"] for each in told["problems"] if each["kind"] == "overdue"]
    assert (code, "recovery key was last drilled" in " ".join(overdue)) == (1, True)
    sealing.stack.psql('DELETE FROM mail_archiver."EmailAttachments"')
    assert content(sealing.stack) != before
    sealing.must("restore", "latest", "--yes", "--no-quarantine", *with_key)
    assert content(sealing.stack) == before


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed (tests/stack/machine.sh)")
def test_age_and_tar_alone_open_it(sealing: Sealing, backup: dict[str, Any], tmp_path: Path) -> None:
    """P19: in four lines of shell it becomes an archive of the guide, with the very members that were sealed."""
    shutil.copy(backup["archive"], tmp_path)
    name = backup["name"]
    subprocess.run(["bash", "-c", SHELL, "sh", name, str(sealing.identity)], cwd=tmp_path, check=True, timeout=60)
    opened = check_archive(tmp_path / f"{name}.tar.gz")
    record = json.loads((sealing.repository / f"{name}.manifest.json").read_text())
    assert [member.model_dump() for member in opened.members] == record["manifest"]["members"]
    assert (tmp_path / name / "database.sql").stat().st_size > 0


def test_a_lost_record_is_made_anew_with_the_key(sealing: Sealing, backup: dict[str, Any]) -> None:
    """Without record and key nothing can be told of the file; with the key it is read, and signed again."""
    (sealing.repository / f"{backup['name']}.manifest.json").unlink()
    code, value, _ = sealing.run("check", backup["name"])
    assert (code, "without a key nothing can be told" in value["error"]) == (1, True)
    code, value, _ = sealing.run("adopt", backup["name"], "--yes")
    assert (code, "no key is at hand" in json.dumps(value)) == (1, True)
    (done,) = sealing.must("adopt", backup["name"], "--yes", "--identity", str(sealing.identity))
    assert done["refused"] is False
    found = next(each for each in sealing.must("list") if each["name"] == backup["name"])
    assert (found["authenticity"], found["encrypted"], found["verified"]) == ("authentic", True, False)


def test_no_copy_beside_is_made_in_the_clear(sealing: Sealing) -> None:
    """A complete backup that copies first would leave the data unencrypted beside the archive for a while."""
    code, value, _ = sealing.run("backup", "complete", "--way", "copy first")
    assert (code, "cannot copy first" in value["error"]) == (2, True)


def test_nothing_is_left_unencrypted_where_recipients_cannot_be_read(sealing: Sealing, tmp_path: Path) -> None:
    """A file of recipients that is gone, empty or wrong ends the backup with a hint; no plain archive is made instead."""
    place = tmp_path / "recipients"
    main = {
        "directory": sealing.stack.directory,
        "repository": tmp_path / "backups",
        "encryption": {"recipients_file": str(place)},
    }
    settings = write_settings(tmp_path / "settings.yaml", {"main": main})
    for text in (None, "# nobody\n", "age1nonsense\n"):
        if text is not None:
            place.write_text(text)
        code, out, _ = run_program([PROGRAM, "backup", "hot", "--settings", str(settings), "--json"])
        assert code == 2
        assert str(place) in json.loads(out)["error"]
        code, out, _ = run_program([PROGRAM, "doctor", "--settings", str(settings), "--json"])
        assert (code, str(place) in json.dumps(json.loads(out)["problems"])) == (1, True)
    assert not list(tmp_path.glob("backups/*.tar*"))


@pytest.mark.long
@pytest.mark.parametrize("method", ["online", "complete"])
def test_whole_copies_are_proven_though_sealed(sealing: Sealing, method: str) -> None:
    """A data directory is encrypted, proven and listed as a dump is."""
    sealing.must("backup", method)
    assert [path.suffix for path in sealing.memory.iterdir()] == [".verification-key"]
    verdict = sealing.must("verify", "latest")
    assert (verdict["verdict"], verdict["opened_with"]) == ("verified", "verification key")
    assert list(sealing.memory.iterdir()) == []


@pytest.mark.parametrize("has_memory", [True, False])
def test_a_night_proves_what_it_sealed(
    sealing: Sealing, on_disk: Path, monkeypatch: pytest.MonkeyPatch, has_memory: bool
) -> None:
    """The automated backup verifies by itself with the key; where there is no place for one it says so, and the night is none that failed."""
    if not has_memory:
        monkeypatch.setenv(MEMORY_VARIABLE, str(on_disk / "keys"))
    night = sealing.must("backup", "auto")
    assert night["verdict"] == ("verified" if has_memory else "not verifiable")
    assert not {"failure", "verification"} & {each["kind"] for each in night["problems"]}
    assert not sealing.memory.exists() or list(sealing.memory.iterdir()) == []


def test_a_copy_elsewhere_is_read_as_the_archive_itself(sealing: Sealing, tmp_path: Path) -> None:
    """Streamed from a target: sealed without the key, read with it; cut there, it is refused."""
    target = tmp_path / "disk"
    target.mkdir()
    about = yaml.safe_load(sealing.settings.read_text())["installations"]["main"]
    copies = [{"name": "disk", "remote": str(target)}]
    settings = write_settings(tmp_path / "settings.yaml", {"main": {**about, "copies": copies}})
    there = replace(sealing, settings=settings)
    with_key = ("--identity", str(sealing.identity))
    there.must("copy")
    assert {each["encrypted"] for each in there.must("list", "--from", "disk")} == {True}
    assert there.must("check", "latest", "--from", "disk")["content_read"] is False
    checked = there.must("check", "latest", "--from", "disk", *with_key)
    assert checked["content_read"] is True
    path = target / Path(checked["archive"]).name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for words in ((), with_key):
        code, value, _ = there.run("check", "latest", "--from", "disk", *words)
        assert (code, "damaged" in value["error"] or "altered" in value["error"]) == (1, True)


def test_nothing_of_it_was_ever_on_a_disk(sealing: Sealing, tmp_path_factory: pytest.TempPathFactory) -> None:
    """P23, after all the tests above, and a verification that was killed: no plaintext at any moment, nothing in what was deleted, no key."""
    made = sealing.must("backup", "hot")
    running = set(container_names())
    child = start_program([PROGRAM, "verify", "latest", "--settings", str(sealing.settings), "--json"])
    try:
        wait_until(lambda: set(container_names()) - running, 60, "no staging was begun")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    verdict = sealing.must("verify", "latest")
    assert (verdict["verdict"], verdict["opened_with"]) == ("verified", "verification key")
    sealing.must("restore", "latest", "--yes", "--no-quarantine", "--identity", str(sealing.identity))

    key = sealing.identity.read_text().splitlines()[1]
    looked = sealing.watch.looks
    wait_until(lambda: sealing.watch.looks > looked + 1, 60, "nobody looks at the disks any more")
    keys = {name: each.encode() for each, name in sealing.watch.keys.items()}
    assert len(keys) >= 1, "no key was seen: this test proves nothing of them"
    assert sealing.watch.found == set()
    needles = {
        "a row of a dump": ROW,
        "the recovery key": key.encode(),
        **pieces_of(Path(made["archive"]), key),
        **keys,
    }
    assert sealing.disk.hits(needles) == set()
    assert list(sealing.memory.iterdir()) == []
    for path in [each for place in tmp_path_factory.getbasetemp().glob("state*") for each in place.rglob("*")]:
        if path.is_file():
            with path.open("rb") as file:
                assert hits_in(file, keys) == set(), path
