"""The command line does without Prefect, whose import takes longer than most commands; every other process has Prefect's own objects."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import prefect
import pytest

import flows
from flows.hot_backup import hot_backup
from tasks import prefect_objects
from tasks.step import Step, step

FLOWS = [f"flows.{each.name}" for each in pkgutil.iter_modules(flows.__path__)]


def run_in_python(*lines: str) -> str:
    """Run lines in a process of their own; give what they print."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_no_flow_imports_prefect_where_it_is_not_wanted() -> None:
    said = run_in_python(
        "import sys, importlib", "from tasks.prefect_objects import do_without_prefect", "do_without_prefect()",
        f"for each in {FLOWS}: importlib.import_module(each)",
        "print([name for name in sys.modules if name.partition('.')[0] == 'prefect'])",
    )  # fmt: skip
    assert said == "[]"


def test_a_command_that_runs_a_flow_does_not_import_it(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    words = ["mailarchiver-backup", "prune", "--directory", str(tmp_path), "--repository", str(tmp_path / "backups")]
    said = run_in_python(
        "import sys", "from deployments.cli import main", f"sys.argv = {words}", "try: main()", "except SystemExit as end: print(end.code)",
        "print('flows.prune' in sys.modules, 'prefect' in sys.modules)",
    )  # fmt: skip
    assert said.splitlines()[-2:] == ["0", "True False"]


def test_the_watchdog_reads_neither_prefect_nor_the_settings() -> None:
    """One is started for each run that stops something: it costs a tenth of a second of a core."""
    said = run_in_python(
        "import sys, tasks.watchdog", "print([name for name in ('prefect', 'pydantic') if name in sys.modules])"
    )
    assert said == "[]"


def test_what_stands_for_a_task_is_retried_as_one() -> None:
    said = run_in_python(
        "from tasks.prefect_objects import do_without_prefect", "do_without_prefect()",
        "import time; from tasks.core.errors import BackupError; from tasks.step import step, Step",
        "waits, tries = [], []", "time.sleep = waits.append",
        "@step(name='try it', run_name='try {number}', retries=2)", "def attempt(number: int) -> int:",
        "    'Try.'", "    tries.append(number)", "    if len(tries) < 3: raise BackupError('not yet', transient=True)", "    return number",
        "print(attempt(7), tries, len(waits), attempt.name, attempt.__doc__, isinstance(attempt, Step))",
    )  # fmt: skip
    assert said == "7 [7, 7, 7] 2 try it Try. True"


def test_elsewhere_they_are_prefects_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And stay so where one was imported before: half of each would be none."""

    @step
    def work() -> None: ...

    assert isinstance(hot_backup, prefect.Flow)
    assert isinstance(work, prefect.Task)
    assert isinstance(work, Step)
    monkeypatch.setattr(prefect_objects, "_without", False)
    prefect_objects.do_without_prefect()
    assert prefect_objects.Task is prefect.Task
    with pytest.raises(AttributeError, match="no attribute 'Deployment'"):
        prefect_objects.Deployment  # type: ignore[attr-defined]  # noqa: B018
