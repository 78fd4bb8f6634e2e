"""The commands that the README shows are the program's, run as it is installed there, and its first one does what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli import PROGRAM, run_program
from tests.stack import engine
from tests.stack.stack import Stack, content, open_stack
from tests.wheel import Installed, install_wheel

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for block in BLOCKS
        for line in block.splitlines()
        if line.startswith("mailarchiver-backup")
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_exists_with_its_options(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every subcommand and every option shown is one that `--help` knows."""
    words = command.split()[1:]
    path = []
    while (
        words
        and not words[0].startswith(("-", "/"))
        and words[0] not in ("latest",)
        and len(path) < (2 if path[:1] == ["backup"] or words[0] in ("lxc", "vm", "host") else 1)
    ):
        path.append(words.pop(0))
    monkeypatch.setenv("COLUMNS", "200")
    code, said, stderr = run_program([PROGRAM, *path, "--help"])

    assert code == 0, stderr
    for option in (word for word in words if word.startswith("--")):
        assert option in said


@pytest.mark.docker
@pytest.mark.timeout(400)
def test_the_demo_comes_up_proves_a_backup_and_goes_away(images: None, tmp_path: Path) -> None:
    """The README's first command, from nothing to Prefect's UI, and its way back; run with this Python's own environment."""
    if not (ROOT / ".venv").exists():
        pytest.skip("the demo makes .venv, which takes minutes; tests/run.sh has made it")
    place = tmp_path / "demo"
    try:
        done = subprocess.run(
            ["bash", str(ROOT / "deployments/demo.sh"), str(place), "--megabytes", "5"],
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "| Verdict | **verified** |" in done.stdout
        assert "Prefect's UI" in done.stdout
        assert "ready: http://127.0.0.1:" in done.stdout
    finally:
        subprocess.run(
            ["bash", str(ROOT / "deployments/demo.sh"), "--down", str(place)],
            capture_output=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    assert not place.exists()
    assert not [name for name in engine.container_names() if "mailarchiver-demo" in name]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Give the program as the README has it installed: the wheel in an environment of its own."""
    return install_wheel(tmp_path_factory.mktemp("installed"))


def readme_commands(heading: str) -> list[str]:
    """List the program's commands in the code blocks of one chapter, in order, as words without comments."""
    (chapter,) = [part for part in re.split(r"^## ", README, flags=re.MULTILINE) if part.startswith(f"{heading}\n")]
    lines = [
        line.split("#")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", chapter, re.DOTALL)
        for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith("mailarchiver-backup ")]


@pytest.mark.docker
@pytest.mark.timeout(400)
def test_the_readmes_commands_work_from_the_installed_program(
    installed: Installed, small_stack: Stack, tmp_path: Path
) -> None:
    """Installed and typed as the README shows: a proven backup, and on the bad day the mail, and the way back."""
    directory, repository = small_stack.directory, small_stack.directory / "backups"
    before = content(small_stack)

    def typed(command: str) -> str:
        words = [word.replace("DIR", str(directory)).replace("REPOSITORY", str(repository)) for word in command.split()]
        if words[1] in ("restore", "rollback", "commit"):
            words.append("--yes")  # for the name that is typed: nobody is at a terminal here
        done = installed.run(*words)
        # The doctor finds a test stack's posture weak, and that is what it says.
        assert done.returncode == (1 if words[1] == "doctor" else 0), (
            f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
        return done.stdout

    start = [typed(command) for command in readme_commands("Start")]
    assert "**verified**" in start[-1]

    small_stack.psql('DELETE FROM mail_archiver."ArchivedEmails" WHERE "Id" % 2 = 0')
    assert content(small_stack) != before
    commands = [line for line in readme_commands("The bad day: restore") if "--into" not in line]
    restore = next(number for number, line in enumerate(commands) if " restore " in line)
    for command in commands[: restore + 1]:
        typed(command)
    assert content(small_stack) == before
    for command in commands[restore + 1 :]:
        typed(command)
    assert content(small_stack) != before
    assert typed(f"{commands[0]} --json")
    typed(f"mailarchiver-backup restore latest --directory {directory} --repository {repository}")
    typed(f"mailarchiver-backup commit --directory {directory} --repository {repository}")
    assert content(small_stack) == before


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_the_readmes_command_for_a_new_machine(installed: Installed, small_stack: Stack, tmp_path: Path) -> None:
    """The stack and all that the program knew of it are gone: the archive and the README's command bring the mail back."""
    before = content(small_stack)

    def told(*words: str) -> Any:
        where = ["--directory", str(small_stack.directory), "--repository", str(tmp_path / "backups"), "--json"]
        done = installed.run(installed.program, *words, *where)
        assert done.returncode == (1 if words[0] == "doctor" else 0), done.stderr
        return json.loads(done.stdout)

    archive = shutil.copy(told("backup", "hot")["archive"], tmp_path)
    key = told("doctor")["signing_key"]["public"]
    (command,) = [line for line in readme_commands("The bad day: restore") if " restore " in line and "--into" in line]
    place = tmp_path / "srv" / "mailarchiver"
    words = [str(place) if word == "/srv/mailarchiver" else word for word in command.split()]
    words = [str(archive) if word.endswith(".tar.gz") else key if word == "ed25519:..." else word for word in words]
    (tmp_path / "new").mkdir(mode=0o700)
    small_stack.compose("down")
    try:
        done = installed.run(*words, MAILARCHIVER_BACKUP_STATE=str(tmp_path / "new"))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        fresh = open_stack(place)
        fresh.wait_app()
        assert content(fresh) == before
        fresh.destroy()
    finally:
        small_stack.compose("up", "--detach", "--no-build")
        small_stack.wait_app()
