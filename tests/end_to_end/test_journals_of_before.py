"""P15 across versions: what the version before this layout had left in its journals when it was killed, this one settles.

The journals in `journals_of_before/` were written by that version (commit 9eee8b9, in a copy of the repository) during
real backups, a verification, restores and commits, and taken at the moment when they were on the disk; places,
containers and databases' numbers are filled in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docker.errors
import pytest

from tasks.adapters.engine.client import engine_address
from tasks.adapters.engine.labels import HELPER_LABEL, PROJECT_LABEL
from tasks.recovery.recover import HANDLERS
from tests.cli import Operator
from tests.content import content
from tests.stack import engine
from tests.stack.images import POSTGRES
from tests.stack.stack import Stack, create_stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

JOURNALS = Path(__file__).parent / "journals_of_before"
SWAPPED = "20261128_094157"
COPIED = "20261128_094214"
STAGING = "mailarchiver-staging-stack-6ea6a1fe"


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("before") / "stack", megabytes=1)
    yield made
    made.destroy()


class Scene:
    """A stack, the state directory in which an old journal lies, and an operator."""

    def __init__(self, stack: Stack, state: Path, repository: Path) -> None:
        self.stack, self.state, self.repository = stack, state, repository
        self.operator = Operator(stack.directory, repository)
        self.data, self.keys = (stack.directory / name for name in ("postgres-data", "data-protection-keys"))

    def leave(self, kind: str, number: int = 0) -> None:
        """Put an old journal where the dead run left it."""
        text = (JOURNALS / f"{kind}.json").read_text()
        ids = {name: self.stack.container(service).id for name, service in SERVICES.items()}
        for name, value in {
            "DIRECTORY": self.stack.directory, "STATE": self.state, "REPOSITORY": self.repository, "PROJECT": self.stack.project,
            "ENGINE": engine_address(), "NUMBER": number, **ids,
        }.items():  # fmt: skip
            text = text.replace(f"@{name}@", str(value))
        head = json.loads(text)
        place = self.state / "journals"
        place.mkdir(mode=0o700, exist_ok=True)
        journal = place / f"{head['owner']}-{head['number']:04d}-{kind}.json"
        journal.write_text(text)
        journal.chmod(0o600)

    def recover(self) -> str:
        """Settle it; return what is said."""
        answer = self.operator.run("recover")
        told = answer.value["recovered"]
        assert answer.code == 0, answer
        assert told
        assert list((self.state / "journals").iterdir()) == []
        return "; ".join(each["message"] for each in told)

    def beside(self) -> list[str]:
        """Name what stands beside the data, the keys and the database."""
        found = [path.name for path in self.stack.directory.iterdir() if path.name.startswith((f"{self.data.name}.", f"{self.keys.name}."))]  # fmt: skip
        rows = self.stack.psql(
            "SELECT datname FROM pg_database WHERE datname LIKE 'MailArchiver%'", database="postgres"
        )
        return sorted([*found, *(str(name) for (name,) in rows if name != self.stack.database)])

    def number(self, database: str) -> int:
        return int(
            self.stack.psql("SELECT oid::bigint FROM pg_database WHERE datname = %s", [database], database="postgres")[
                0
            ][0]
        )


SERVICES = {"POSTGRES": "postgres", "APPLICATION": "mailarchive-app"}


@pytest.fixture
def scene(stack: Stack, state_directory: Path, tmp_path: Path) -> Scene:
    repository = tmp_path / "backups"
    repository.mkdir()
    return Scene(stack, state_directory, repository)


def directory(path: Path) -> Path:
    """Make a directory with something in it."""
    path.mkdir()
    (path / "key-1.xml").write_text("<key/>")
    return path


def stopped_services(scene: Scene) -> None:
    for service in reversed(SERVICES.values()):
        scene.stack.container(service).stop()
    scene.leave("stopped-services")
    scene.recover()
    assert {state for _, state, _ in scene.stack.states().values()} == {"running"}
    scene.stack.wait_app()


def replacement(scene: Scene) -> None:
    restored = f"MailArchiver_restored_{SWAPPED}"
    scene.stack.psql(f'CREATE DATABASE "{restored}"', database="postgres")
    directory(scene.keys.with_name(f"{scene.keys.name}.restored-{SWAPPED}"))
    scene.leave("replacement")
    assert restored in scene.recover()
    assert scene.beside() == []


def make_restored_database(scene: Scene) -> str:
    """Make what a restore has loaded, with its keys: the current data with a mark."""
    restored = f"MailArchiver_restored_{SWAPPED}"
    scene.stack.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [scene.stack.database], database="postgres"
    )  # fmt: skip
    scene.stack.psql(f'CREATE DATABASE "{restored}" TEMPLATE "{scene.stack.database}"', database="postgres")
    scene.stack.psql('UPDATE mail_archiver."ArchivedEmails" SET "Subject" = \'restored\'', database=restored)
    directory(scene.keys.with_name(f"{scene.keys.name}.restored-{SWAPPED}"))
    return restored


def swap_that_had_not_begun(scene: Scene) -> None:
    before = content(scene.stack)
    scene.stack.container("mailarchive-app").stop()
    restored = make_restored_database(scene)
    scene.leave("swap", scene.number(restored))
    scene.leave("replacement")
    assert "the swap had not begun" in scene.recover()
    assert scene.beside() == []
    assert content(scene.stack) == before
    scene.stack.compose("start", "mailarchive-app")
    scene.stack.wait_app()


def swap_that_was_begun(scene: Scene) -> None:
    """The databases were swapped, the keys were not: then they follow, and all of it can be taken back."""
    before, keys = content(scene.stack), sorted(path.name for path in scene.keys.iterdir())
    scene.stack.container("mailarchive-app").stop()
    restored = make_restored_database(scene)
    number, current = scene.number(restored), scene.stack.database
    scene.stack.psql(f'ALTER DATABASE "{current}" RENAME TO "MailArchiver_before_{SWAPPED}"', database="postgres")
    scene.stack.psql(f'ALTER DATABASE "{restored}" RENAME TO "{current}"', database="postgres")
    scene.leave("swap", number)
    assert "completed the swap" in scene.recover()
    assert [path.name for path in scene.keys.iterdir()] == ["key-1.xml"]
    assert content(scene.stack) != before
    scene.stack.compose("start", "mailarchive-app")
    scene.stack.wait_app()

    scene.operator.must("rollback", "--yes")
    scene.stack.wait_app()
    assert content(scene.stack) == before
    assert sorted(path.name for path in scene.keys.iterdir()) == keys
    scene.operator.must("commit", "--yes")
    assert scene.beside() == []


def drop(scene: Scene) -> None:
    directory(scene.keys.with_name(f"{scene.keys.name}.before-{SWAPPED}"))
    scene.leave("drop", 4_000_000_000)
    assert "completed the commit" in scene.recover()
    assert scene.beside() == []


def copy(scene: Scene) -> None:
    for place in (scene.data, scene.keys):
        directory(place.with_name(f"{place.name}.restored-{COPIED}"))
    scene.leave("copy")
    scene.recover()
    assert scene.beside() == []


def directory_swap(scene: Scene) -> None:
    """Half of it had been renamed: the rest follows, and all of it can be taken back."""
    before = content(scene.stack)
    scene.stack.compose("stop")
    for place in (scene.data, scene.keys):
        subprocess.run(["cp", "-a", place, place.with_name(f"{place.name}.restored-{COPIED}")], check=True)
    incoming = scene.data.with_name(f"{scene.data.name}.restored-{COPIED}")
    number = incoming.stat().st_ino
    scene.data.rename(scene.data.with_name(f"{scene.data.name}.before-{COPIED}"))
    incoming.rename(scene.data)
    scene.leave("directory-swap")
    assert "completed the swap" in scene.recover()
    assert scene.data.stat().st_ino == number
    scene.stack.compose("start")
    scene.stack.wait_postgres()
    scene.stack.wait_app()
    assert content(scene.stack) == before
    assert len([name for name in scene.beside() if ".before-" in name]) == 2

    scene.operator.must("rollback", "--yes")
    scene.stack.wait_app()
    assert scene.data.stat().st_ino != number
    scene.operator.must("commit", "--yes")
    assert scene.beside() == []


def directory_drop(scene: Scene) -> None:
    for place in (scene.data, scene.keys):
        directory(place.with_name(f"{place.name}.before-{COPIED}"))
    scene.leave("directory-drop")
    assert "completed the commit" in scene.recover()
    assert scene.beside() == []


def scratch(scene: Scene) -> None:
    place = directory(scene.repository / ".mailarchiver-backup-20261128-094127.copy")
    scene.leave("scratch")
    scene.recover()
    assert not place.exists()


def helper(scene: Scene) -> None:
    mark = json.loads((JOURNALS / "helper.json").read_text())["body"]["mark"]
    made = engine.engine().containers.create(POSTGRES, ["true"], labels={HELPER_LABEL: mark})
    try:
        scene.leave("helper")
        assert "removed the helper container" in scene.recover()
        with pytest.raises(docker.errors.NotFound):
            made.reload()
    finally:
        with suppress(docker.errors.NotFound):
            made.remove(force=True)


def staging(scene: Scene) -> None:
    place = scene.state / "staging" / STAGING
    place.parent.mkdir(mode=0o700)
    directory(place)
    client, labels = engine.engine(), {PROJECT_LABEL: STAGING}
    made = client.containers.create(POSTGRES, ["true"], labels=labels)
    network = client.networks.create(STAGING, internal=True, labels=labels)
    try:
        scene.leave("staging")
        assert STAGING in scene.recover()
        for each in (made, network):
            with pytest.raises(docker.errors.NotFound):
                each.reload()
        assert not place.exists()
    finally:
        shutil.rmtree(place, ignore_errors=True)


SCENES: dict[str, list[Callable[[Scene], None]]] = {
    "stopped-services": [stopped_services],
    "replacement": [replacement],
    "swap": [swap_that_had_not_begun, swap_that_was_begun],
    "drop": [drop],
    "copy": [copy],
    "directory-swap": [directory_swap],
    "directory-drop": [directory_drop],
    "scratch": [scratch],
    "helper": [helper],
    "staging": [staging],
}


@pytest.mark.parametrize("play", [each for scenes in SCENES.values() for each in scenes])
def test_a_journal_of_before_is_settled(scene: Scene, play: Callable[[Scene], None]) -> None:
    play(scene)


def test_every_kind_that_was_written_is_tried() -> None:
    assert {path.stem for path in JOURNALS.glob("*.json")} == set(SCENES)
    assert set(SCENES) <= set(HANDLERS)
