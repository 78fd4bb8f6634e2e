"""A night costs what has changed: chains of online backups are built, proven, restored and kept as what they are, one backup each."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tasks.adapters.host.memory_place import MEMORY_VARIABLE
from tests.cli import PROGRAM, run_program
from tests.content import content
from tests.end_to_end.test_guide_archives import DUMP_RESTORE, FULL_RESTORE, guide
from tests.settings import write_settings
from tests.stack.stack import Stack, create_stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Scene:
    """A stack that the settings want incremental backups of."""

    stack: Stack
    place: Path

    @property
    def repository(self) -> Path:
        return self.place / "backups"

    def run(self, *words: str) -> tuple[int, Any, str]:
        code, stdout, stderr = run_program([PROGRAM, *words, "--settings", str(self.place / "settings.yaml"), "--json"])
        return code, json.loads(stdout) if stdout.strip() else None, stderr

    def must(self, *words: str) -> Any:
        code, value, stderr = self.run(*words)
        assert code == 0, f"{words}: {value} {stderr[-3000:]}"
        return value

    def configure(self, **more: Any) -> None:
        main = {"directory": self.stack.directory, "repository": self.repository, "incremental": {"kind": "auto"}}
        write_settings(self.place / "settings.yaml", {"main": main | more})

    def summarizes(self) -> str:
        return str(self.stack.psql("SHOW summarize_wal")[0][0])


@pytest.fixture(scope="module")
def scene(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("scene")
    made = Scene(create_stack(place / "stack", megabytes=4), place)
    made.configure()
    made.stack.psql("VACUUM (FREEZE)")  # else the first reader of so new a table would change each of its pages
    yield made
    made.stack.destroy()


def test_a_chain_grows_while_the_application_writes_and_each_link_comes_back(scene: Scene) -> None:
    """The first night is a full one and says why; then each holds what has changed. Every one of them is a backup."""
    first = scene.must("backup", "online")
    assert (first["parents"], "no online backup yet" in first["why_full"]) == ([], True)
    assert (first["format"], scene.summarizes()) == ("guide", "on")

    nights, contents = [first], []
    for night in range(2):
        scene.stack.psql(
            f"CREATE TABLE night_{night} AS SELECT n, md5(n::text) AS text FROM generate_series(1, 2000) n"
        )
        scene.stack.set_writing(20)
        before = scene.stack.written()
        wait_until(lambda before=before: scene.stack.written() > before + 10, 20, "the application does not write")
        if night:  # the last of them has a moment to compare with
            scene.stack.set_writing(0)
        contents.append(content(scene.stack))
        nights.append(scene.must("backup", "online"))
        scene.stack.set_writing(0)
    assert [each["parents"] for each in nights] == [[each["name"] for each in nights[:count]] for count in range(3)]
    # How much was written meanwhile is the machine's to say; what a night costs is tests/campaigns/nights.py's.
    assert all(each["bytes"] < first["bytes"] for each in nights[1:])
    assert all(each["downtime_seconds"] == 0 for each in nights)

    proven = scene.must("verify", nights[2]["name"])
    assert proven["verdict"] == "verified"
    assert {"base backup", "attachments", "B-trees and tables"} <= set(proven["compared"])

    scene.stack.psql('DROP TABLE night_1; DELETE FROM mail_archiver."EmailAttachments"')
    scene.must("restore", nights[2]["name"], "--yes")
    assert content(scene.stack) == contents[1]
    assert not [each for each in scene.stack.directory.iterdir() if "restored-" in each.name]

    # The server was set back to before the last backup's end: WAL positions would not tell, the tokens do.
    after = scene.must("backup", "online")
    assert after["parents"] == [] or after["parents"][-1] != nights[2]["name"]
    scene.must("commit", "--yes")


def test_where_nearly_all_has_changed_the_next_one_is_full(scene: Scene) -> None:
    """It is as quick, and a restore reads its data once; anyone who asks for an incremental one gets it."""
    first = scene.must("backup", "online", "--full")
    scene.stack.psql("CREATE TABLE grown AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000000) n")
    asked = scene.must("backup", "online", "--incremental")
    assert asked["parents"][-1] == first["name"]
    scene.stack.psql("VACUUM FULL grown")
    (end,) = scene.stack.psql("SELECT pg_current_wal_lsn()")[0]
    scene.stack.psql("CHECKPOINT")  # up to which the server notes what has changed
    noted = f"SELECT summarized_lsn >= '{end}' FROM pg_get_wal_summarizer_state()"
    wait_until(lambda: scene.stack.psql(noted)[0][0], 60, "the server does not note what has changed")
    whole = scene.must("backup", "online")
    assert whole["parents"] == []
    assert "% of the data have changed since the last one" in whole["why_full"]
    scene.stack.psql("DROP TABLE grown")


def test_a_missing_or_altered_link_is_named(scene: Scene) -> None:
    """By check, verification and restore; nothing current is touched, and the next backup does without it."""
    scene.must("backup", "online", "--full")
    link, newest = scene.must("backup", "online"), scene.must("backup", "online")
    assert newest["parents"][-1] == link["name"]
    archive = Path(link["archive"])
    kept = archive.read_bytes()
    before = content(scene.stack)

    altered = bytearray(kept)
    altered[len(altered) // 2] ^= 1
    archive.write_bytes(altered)
    for words, code in ((("check",), 1), (("restore", "--yes"), 1)):
        found, _, stderr = scene.run(words[0], newest["name"], *words[1:])
        assert (found, archive.name in stderr) == (code, True), stderr
    code, told, stderr = scene.run("verify", newest["name"])
    assert code == 1
    assert archive.name in stderr + json.dumps(told)

    archive.unlink()
    for words in (("check",), ("restore", "--yes"), ("verify",)):
        code, told, stderr = scene.run(words[0], newest["name"], *words[1:])
        assert code != 0
        assert f"needs {archive.name}, which is missing" in stderr + json.dumps(told)
    record = scene.repository / f"{link['name']}.manifest.json"
    text = record.read_bytes()
    record.unlink()
    after = scene.must("backup", "online")
    assert link["name"] not in after["parents"]
    assert content(scene.stack) == before
    archive.write_bytes(kept)
    archive.chmod(0o600)
    record.write_bytes(text)
    record.chmod(0o600)
    assert scene.must("check", newest["name"])["kind"] == "physical"


def test_what_is_built_on_stays_when_retention_would_let_it_go(scene: Scene) -> None:
    """The plan says for whose sake."""
    scene.configure(retention={"keep_last": 1, "minimum_verified": 1})
    scene.must("backup", "online", "--full")
    newest = scene.must("backup", "online")
    scene.must("verify", newest["name"])
    plan = scene.must("prune")
    left = {each["name"] for each in scene.must("list")}
    assert left == {newest["name"], *newest["parents"]}
    told = json.dumps(plan)
    assert f"{newest['name']} build on it" in told
    assert scene.must("check", newest["name"])
    scene.configure()


def test_without_notes_or_the_list_of_files_the_next_one_is_full(scene: Scene, state_directory: Path) -> None:
    """And `wal-summaries --off` takes back what was set in the server, which then only the settings ask for again."""
    scene.must("backup", "online")
    assert scene.must("backup", "online")["parents"]
    lists = list(state_directory.parent.rglob("base-manifests/main/*"))
    assert lists
    for each in lists:
        each.unlink()
    assert "list of the files" in scene.must("backup", "online")["why_full"]
    assert scene.must("backup", "online")["parents"]

    assert scene.must("wal-summaries")["summarizes"] is True
    told = scene.must("wal-summaries", "--off")
    assert (told["changed"], scene.summarizes()) == (True, "off")
    auto = scene.stack.psql("SELECT count(*) FROM pg_file_settings WHERE name ~ 'mailarchiver|summarize'")
    assert auto == [(0,)]

    scene.configure(incremental={"kind": "full"})
    asked = scene.must("backup", "online", "--incremental")
    assert (asked["parents"], "summarize_wal is off" in asked["why_full"]) == ([], True)
    assert scene.summarizes() == "off"
    assert scene.must("wal-summaries")["kind"] == "full"
    scene.configure()

    def allows(word: str) -> None:
        line = f"allow_alter_system = {word}"
        scene.stack.container("postgres").exec_run(["sh", "-c", f'echo "{line}" >>"$PGDATA/postgresql.conf"'])
        scene.stack.psql("SELECT pg_reload_conf()")
        wait_until(
            lambda: scene.stack.psql("SHOW allow_alter_system") == [(word,)],
            10,
            "the server does not read its settings",
        )

    allows("off")
    refused = scene.must("backup", "online")
    assert (refused["parents"], "cannot be told to note what changes" in refused["why_full"]) == ([], True)
    allows("on")
    assert "did not go on from" in scene.must("backup", "online")["why_full"]
    shutil.rmtree(scene.repository)


def test_a_chain_becomes_a_full_backup_on_this_side_and_goes_once_that_is_proven(scene: Scene) -> None:
    """The automated backup sees that one is due; the database is not read for it, and the next night builds on it."""
    keeps_one = {"retention": {"keep_last": 1, "minimum_verified": 1}, "method": "online"}
    rules = {"kind": "auto", "full_after_links": 2, "synthetic": True}
    scene.configure(**keeps_one, incremental=rules, verification={"when": "never"})
    links = [scene.must("backup", "online", "--full")["name"]]
    scene.stack.psql("CREATE TABLE night_of_two AS SELECT n, md5(n::text) AS text FROM generate_series(1, 2000) n")
    before = content(scene.stack)
    night = scene.must("backup", "auto")
    made = json.loads((scene.repository / f"{night['name']}.manifest.json").read_text())["manifest"]
    links = made["made_of"]
    assert (night["parents"], len(links), made["version"]) == ([], 2, 1)
    assert {each["name"] for each in scene.must("list")} >= {*links, night["name"]}  # not proven yet

    assert scene.must("verify", night["name"])["verdict"] == "verified"
    scene.must("prune")
    assert [each["name"] for each in scene.must("list")] == [night["name"]]
    after = scene.must("backup", "online")
    assert after["parents"] == [night["name"]]
    scene.stack.psql("DROP TABLE night_of_two")
    scene.must("restore", after["name"], "--yes")
    assert content(scene.stack) == before
    code, _, stderr = scene.run("backup", "synthetic", night["name"])
    assert (code, "whole by itself" in stderr) == (1, True)
    scene.must("commit", "--yes")
    scene.configure()


@pytest.mark.parametrize("method", ["chain", pytest.param("hot", marks=pytest.mark.long)])
def test_what_is_exported_needs_nothing_of_this_program(scene: Scene, tmp_path: Path, method: str) -> None:
    """By the guide's own commands, typed as they stand there."""
    scene.must("backup", "online", "--full")
    scene.stack.psql(f"CREATE TABLE exported_{method} AS SELECT n FROM generate_series(1, 1000) n")
    before = content(scene.stack)
    made = scene.must("backup", "hot", "--format", "fast") if method == "hot" else scene.must("backup", "online")
    done = scene.must("export", made["name"], "--to", str(tmp_path / "away"))
    assert [each.name for each in (tmp_path / "away").iterdir()] == [f"{made['name']}.tar.gz"]
    assert scene.run("export", made["name"], "--to", str(scene.repository))[0] == 1

    scene.stack.psql(f"DROP TABLE exported_{method}")
    guide(scene.stack, DUMP_RESTORE if method == "hot" else FULL_RESTORE, done["archive"])
    assert content(scene.stack) == before


def test_an_encrypted_chain_goes_away_as_a_whole_and_comes_back(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proven here without a key of the operator's, and from its copies alone with it."""
    key = pyrage.x25519.Identity.generate()
    identity = tmp_path / "identity"
    identity.write_text(f"{key}\n")
    identity.chmod(0o600)
    (scene.place / "disk").mkdir()
    scene.configure(
        encryption={"recipients": [str(key.to_public())]},
        copies=[{"name": "disk", "remote": str(scene.place / "disk"), "part_bytes": 2**20}],
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        monkeypatch.setenv(MEMORY_VARIABLE, f"{memory}/keys")
        full = scene.must("backup", "online")
        scene.stack.psql("CREATE TABLE sealed_night AS SELECT n, md5(n::text) AS text FROM generate_series(1, 2000) n")
        newest = scene.must("backup", "online")
        assert newest["parents"] == [full["name"]]
        proven = scene.must("verify", newest["name"])
        assert (proven["verdict"], proven["opened_with"]) == ("verified", "verification key")
    before = content(scene.stack)
    scene.must("copy")
    scene.stack.psql("DROP TABLE sealed_night")
    shutil.rmtree(scene.repository)

    proven = scene.must("verify", newest["name"], "--from", "disk", "--with-recovery-key", "--identity", str(identity))
    assert (proven["verdict"], "recorded census" in proven["compared"]) == ("verified", True)
    scene.must("restore", newest["name"], "--from", "disk", "--identity", str(identity), "--yes")
    assert content(scene.stack) == before

    for part in (scene.place / "disk").glob(f"{Path(full['archive']).name}*"):
        part.unlink()
    code, told, stderr = scene.run("restore", newest["name"], "--from", "disk", "--identity", str(identity), "--yes")
    assert code == 1, told
    assert f"needs {Path(full['archive']).name}, which is missing" in stderr
    scene.configure()
