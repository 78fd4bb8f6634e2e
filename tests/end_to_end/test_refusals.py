"""What may not be copied or restored is refused before anything is touched, or fails loudly with the services back as before."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.core.archive.manifest import Manifest
from tests.cli import PROGRAM, Operator, run_program
from tests.content import content
from tests.rebuild import rebuilt
from tests.settings import write_settings
from tests.stack.images import POSTGRES
from tests.stack.stack import POSTGRES_SERVICE, Stack, create_stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("refusals") / "stack")
    yield made
    made.destroy()


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Operator:
    return Operator(stack.directory, tmp_path / "backups")


def running(stack: Stack) -> dict[str, str]:
    return {service: state for service, (_, state, _) in stack.states().items()}


def test_a_data_directory_that_somebody_else_mounts_is_left_alone(stack: Stack, operator: Operator) -> None:
    """Two servers on one data directory ruin it: who else has it mounted might start one."""
    operator.must("backup", "online")
    before, mails = stack.states(), content(stack)
    other = subprocess.run(
        ["docker", "run", "-d", "-v", f"{stack.directory}/postgres-data:/data", "--entrypoint", "sleep", POSTGRES, "300"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    try:
        for words in (("backup", "complete"), ("restore", "latest", "--yes")):
            answer = operator.run(*words)
            assert answer.code == 1
            assert "mount" in answer.stderr
            assert stack.states() == before
    finally:
        subprocess.run(["docker", "rm", "-f", other], capture_output=True, check=True)
    assert content(stack) == mails
    operator.must("backup", "complete")


def test_a_postgres_that_somebody_starts_in_the_middle_fails_the_copy(stack: Stack, operator: Operator) -> None:
    """Its bytes would be of no one moment."""
    container = stack.container(POSTGRES_SERVICE).id
    meddler = subprocess.Popen(
        ["bash", "-c", f'until [ "$(docker inspect -f {{{{.State.Running}}}} {container})" = false ]; do sleep 0.02; done; docker start {container}'],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        answer = operator.run("backup", "complete", "--way", "stream")
    finally:
        meddler.wait(60)
    assert answer.code == 1, answer.value
    stack.wait_app()
    assert set(running(stack).values()) == {"running"}
    assert [path.name for path in operator.repository.glob("*.tar.*")] == []
    operator.must("backup", "complete")


def test_a_shutdown_that_is_not_clean_fails_the_copy(stack: Stack, tmp_path: Path) -> None:
    """A checkpointer that is held still lets PostgreSQL be killed at the end of its time; such files are of no clean moment."""
    settings = write_settings(
        tmp_path / "settings.yaml",
        {
            "main": {
                "directory": stack.directory, "repository": tmp_path / "backups", "project": stack.project,
                "timeouts": {"postgres_stop_seconds": 3},
            }
        },
    )  # fmt: skip
    # By the beginning of its title: the shell that looks for it has the same words in its own.
    holding = "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" in 'postgres: checkpointer'*) kill -STOP ${p#/proc/};; esac; done"
    subprocess.run(["docker", "exec", stack.container(POSTGRES_SERVICE).id, "bash", "-c", holding], check=True)
    code, _, said = run_program([PROGRAM, "backup", "complete", "-i", "main", "--settings", str(settings)])
    assert code == 1
    assert "shut down" in said
    stack.wait_app()
    assert set(running(stack).values()) == {"running"}
    assert list((tmp_path / "backups").glob("*.tar.*")) == []
    Operator(stack.directory, tmp_path / "backups").must("backup", "complete")


def test_data_of_another_postgres_or_libc_and_archives_without_keys_are_refused(
    stack: Stack, operator: Operator, tmp_path: Path
) -> None:
    """Started on such data, PostgreSQL would refuse, or read its indexes wrongly; without keys the users' sessions are gone."""
    operator.must("backup", "online")
    archive = Path(operator.must("list")[0]["archive"])
    before, mails = stack.states(), content(stack)

    def facts(**changes: object) -> Callable[[Manifest], Manifest]:
        return lambda manifest: manifest.model_copy(update={"database": manifest.database.model_copy(update=changes)})

    cases: dict[str, tuple[Path, str]] = {
        "libc": (rebuilt(archive, tmp_path / "libc", told=facts(libc="musl")), "musl"),
        "architecture": (rebuilt(archive, tmp_path / "arch", told=facts(architecture="aarch64")), "aarch64"),
        "altered": (tarred_without(archive, tmp_path / "altered", "data-protection-keys"), "missing"),
        "keys": (tarred_without(archive, tmp_path / "keys", "data-protection-keys", "manifest.json"), "keys"),
    }
    for name, (path, words) in cases.items():
        answer = operator.run("restore", str(path), "--yes", "--foreign", "--with-code")
        assert answer.code == 1, name
        assert words in answer.stderr, name
        assert "HINT" in answer.stderr, name
        assert stack.states() == before
    assert content(stack) == mails


def test_postgres_15_data_does_not_go_into_a_17_image(
    stack: Stack, make_stack: Callable[..., Stack], older_postgres: str, tmp_path: Path
) -> None:
    """The whole data directory is of one major version; a dump of the older one goes into the newer."""
    older = make_stack(postgres_image=older_postgres)
    theirs = Operator(older.directory, tmp_path / "older")
    theirs.must("backup", "complete")
    assert theirs.must("verify")["verdict"] == "verified"
    before, mails = stack.states(), content(stack)
    ours = Operator(stack.directory, tmp_path / "older")
    answer = ours.run("restore", theirs.must("list")[0]["name"], "--yes", "--foreign", "--with-code")
    assert answer.code == 1
    assert "15" in answer.stderr
    assert "17" in answer.stderr
    assert stack.states() == before
    assert content(stack) == mails

    theirs.must("backup", "hot")
    wanted = content(older)
    ours.must("restore", theirs.must("list")[0]["name"], "--yes", "--foreign")
    stack.wait_app()
    ours.must("lift-quarantine")
    assert {name: value for name, value in content(stack).items() if "." in name} == {
        name: value for name, value in wanted.items() if "." in name
    }


def tarred_without(archive: Path, place: Path, *names: str) -> Path:
    """Pack an archive anew by plain tar, without these of its files and directories; it has no record."""
    place.mkdir()
    top = archive.name.removesuffix(".tar.gz")
    subprocess.run(["tar", "-xf", str(archive), "-C", str(place)], check=True)
    for name in names:
        subprocess.run(["rm", "-r", str(place / top / name)], check=True)
    subprocess.run(["tar", "-czf", str(place / archive.name), "-C", str(place), top], check=True)
    return place / archive.name
