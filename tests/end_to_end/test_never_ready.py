"""Containers that run and never become ready: each command ends within its limit, says what it waited for, and hears SIGTERM at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import PROGRAM, run_program, start_program
from tests.content import content
from tests.settings import write_settings
from tests.stack.stack import Stack, create_stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

LIMIT_SECONDS = 4
# Besides the waits: the work itself, on a busy machine.
WORK_SECONDS = 60


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a stack whose application runs and never answers again once it was stopped."""
    made = create_stack(tmp_path_factory.mktemp("never") / "stack", megabytes=1, extras=False)
    never = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); time.sleep(10**6)"
    made.compose("exec", "-T", "-u", "root", "mailarchive-app", "sh", "-c", f"echo '{never}' >/app/standin.py")
    yield made
    made.destroy()


def settings(stack: Stack, place: Path, monkeypatch: pytest.MonkeyPatch, *, start_seconds: int) -> Path:
    """Write the settings of the stack, and return its repository."""
    repository = place / "backups"
    main = {
        "directory": stack.directory, "repository": repository, "timeouts": {"application_start_seconds": start_seconds},
    }  # fmt: skip
    monkeypatch.setenv("MAILARCHIVER_BACKUP_SETTINGS", str(write_settings(place / "settings.yaml", {"main": main})))
    return repository


def command(*words: str) -> list[str]:
    return [PROGRAM, *words, "--installation", "main", "--json"]


def states(stack: Stack) -> dict[str, str]:
    return {service: state for service, (_, state, _) in stack.states().items()}


def test_an_application_that_never_answers(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete backup is made and says that the stack does not answer; a restore is taken back."""
    repository = settings(stack, tmp_path, monkeypatch, start_seconds=LIMIT_SECONDS)
    before = content(stack)
    for words in (["backup", "complete"], ["restore", "latest", "--yes", "--no-quarantine"]):
        begun = time.monotonic()

        code, told, _ = run_program(command(*words))

        assert code == 1, told
        assert "does not answer on port 5000 after" in told
        assert time.monotonic() - begun < WORK_SECONDS + 2 * LIMIT_SECONDS
        stack.wait_postgres()
        assert states(stack) == {"mailarchive-app": "running", "postgres": "running"}
        assert content(stack) == before
    assert "The former data was put back in place" in told
    (archive,) = repository.glob("*.tar.gz")
    assert run_program(command("check", str(archive)))[0] == 0
    run_program(command("commit", "--yes"))


def test_a_wait_for_an_application_hears_sigterm(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backup is sealed by then; the services run."""
    repository = settings(stack, tmp_path, monkeypatch, start_seconds=300)
    process = start_program(command("backup", "complete"))
    wait_until(lambda: any(repository.glob("*.manifest.json")), WORK_SECONDS, "the backup is not sealed")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) != 0
    assert time.monotonic() - begun < 10

    assert states(stack) == {"mailarchive-app": "running", "postgres": "running"}


def test_a_server_that_never_becomes_ready(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that only a start reads keeps it down: the backup is whole, and a restore of it ends before anything is swapped."""
    repository = settings(stack, tmp_path, monkeypatch, start_seconds=LIMIT_SECONDS)
    own = stack.directory / "postgres-data" / "postgresql.auto.conf"
    former = own.read_text()
    own.write_text(f"{former}no_such_setting = 1\n")
    begun = time.monotonic()

    code, told, _ = run_program(command("backup", "complete"))

    assert code == 1, told
    assert time.monotonic() - begun < WORK_SECONDS + LIMIT_SECONDS
    own.write_text(former)
    stack.compose("restart", "--timeout", "5", "postgres")
    stack.wait_postgres()
    before, ran = content(stack), states(stack)
    (archive,) = repository.glob("*.tar.gz")
    begun = time.monotonic()

    code, told, _ = run_program(command("restore", str(archive), "--yes"))

    assert code == 1
    assert "no_such_setting" in told
    assert time.monotonic() - begun < WORK_SECONDS
    assert (content(stack), states(stack)) == (before, ran)
