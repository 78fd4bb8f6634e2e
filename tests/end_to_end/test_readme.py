"""The commands that the README shows are the program's, and its first one does what it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.cli import PROGRAM
from tests.stack import engine

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
def test_a_command_of_the_readme_exists_with_its_options(command: str) -> None:
    """Every subcommand and every option shown is one that `--help` knows."""
    words = command.split()[1:]
    path = []
    while (
        words
        and not words[0].startswith(("-", "/"))
        and words[0] not in ("latest",)
        and len(path) < (2 if path[:1] == ["backup"] else 1)
    ):
        path.append(words.pop(0))
    done = subprocess.run(
        [PROGRAM, *path, "--help"],
        capture_output=True,
        text=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
        check=False,
    )

    assert done.returncode == 0, done.stderr
    for option in (word for word in words if word.startswith("--")):
        assert option in done.stdout


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
    assert not [each.name for each in engine.engine().containers.list(all=True) if "mailarchiver-demo" in each.name]
