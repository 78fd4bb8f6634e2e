"""What contributors are told to run exists, and runs what CI runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def test_pre_commit_runs_what_the_tests_one_command_runs() -> None:
    """The same checks in the same order, all of the project's own tools; only the tests are fewer."""
    hooks = [
        hook
        for each in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in each["hooks"]
    ]
    before_commit = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    in_ci = re.findall(r"^(?:step|beside) ((?:ruff|mypy).*)$", (ROOT / "tests" / "run.sh").read_text(), re.MULTILINE)

    assert all(hook["entry"].startswith(".venv/bin/") and not hook["pass_filenames"] for hook in hooks)
    assert before_commit[:-1] == in_ci
    assert before_commit[-1].startswith("python -m pytest ")
    assert "tests/unit" in before_commit[-1]


def test_every_smoke_test_is_there() -> None:
    """A test that was renamed is noticed before the day when packages are updated."""
    for line in (ROOT / "tests" / "smoke.txt").read_text().splitlines():
        path, _, name = line.partition("::")

        assert (ROOT / path).exists(), line
        assert not name or f"def {name}(" in (ROOT / path).read_text(), line


@pytest.mark.parametrize(
    "command",
    sorted(path for place in ("benchmarks", "campaigns") for path in (ROOT / "tests" / place).glob("*.py")),
    ids=lambda path: path.stem,
)
def test_a_command_that_the_suite_does_not_run_can_be_loaded(command: Path) -> None:
    """A benchmark or campaign whose imports no longer hold would be noticed on the day that it is wanted."""
    importlib.import_module(".".join(command.relative_to(ROOT).with_suffix("").parts))


def test_requirements_say_nothing_of_where_packages_came_from() -> None:
    """Names, versions and hashes: the file is the same whichever index somebody uses."""
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.fullmatch(
            r"#.*|[a-z0-9._-]+(\[[a-z,]+\])?==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?|    #.*", line, re.ASCII
        ), line
        assert "://" not in line
        assert "/" not in line.removeprefix("#    tests/")


def test_the_files_that_contributors_are_sent_to_exist() -> None:
    """The page is short, and true."""
    page = (ROOT / "CONTRIBUTING.md").read_text()

    assert len(page.splitlines()) < 100
    for name in re.findall(
        r"(?<![\w/.])((?:tests|tasks|flows|deployments)/[\w/.]*\w|\.pre-commit-config\.yaml|pyproject\.toml)", page
    ):
        assert (ROOT / name).exists(), name
