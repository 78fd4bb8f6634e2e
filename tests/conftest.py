"""Fixtures that every test may ask for: an engine, the images, and stacks with mail in them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tasks.collector import collect_as_usual, collect_seldom
from tests.stack import engine
from tests.stack.images import ensure_images
from tests.stack.stack import Stack, create_stack

collect_seldom()
# How fast examples are made says more of what else the machine does than of a test.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


# The browser's test waits for the images to be made, which takes a minute on a new machine; what needs none runs meanwhile. The
# quickest files with a stack come last, so that all workers end together.
FOLDERS = ("browser", "unit", "corpus", "flows", "end_to_end", "integration")
# The files that take minutes are the first with a stack: begun late, one of them would be all that still runs.
LONGEST = (
    "test_prefect_deployments.py", "test_cases.py", "test_incremental.py", "test_readme.py", "test_upgrades.py", "test_application_upgrades.py",
    "test_proxmox_verification.py", "test_never_left_down.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders in the order in which they are run, and the longest files before the others with a stack."""

    def place(item: pytest.Item) -> tuple[int, bool]:
        folder, is_long = (*item.nodeid.split("/"), "")[1], item.path.name in LONGEST
        if is_long:
            folder = "end_to_end"
        return (FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)), not is_long

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Take what was imported, and the tests themselves, for what stays: three thousand of them."""
    collect_as_usual()


@pytest.fixture(scope="module", autouse=True)
def module_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give what a module's fixtures do a state directory too; its signing keys go from test to test.

    So a backup that one test of a module made, or a fixture, is the next one's own.
    """
    place = tmp_path_factory.mktemp("state", numbered=True)
    place.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAILARCHIVER_BACKUP_STATE", str(place))
        yield place


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Give each test the environment that the one before it had: the program, run in a test's process, sets variables."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - {*before, "PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name != "PYTEST_CURRENT_TEST"})


@pytest.fixture(autouse=True)
def state_directory(
    module_state: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Give every test a state directory of its own: no lock or journal of the machine is seen or touched."""
    place = tmp_path_factory.mktemp("state", numbered=True)
    place.chmod(0o700)
    signing_keys = module_state / "identities"
    if signing_keys.exists():
        shutil.copytree(signing_keys, place / "identities")
    monkeypatch.setenv("MAILARCHIVER_BACKUP_STATE", str(place))
    yield place
    if (place / "identities").exists():
        shutil.copytree(place / "identities", signing_keys, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Stand for a usable Docker engine: in CI a missing one is a failure, elsewhere the test is skipped with the reason.

    Takes away what earlier test runs left behind when they were killed.
    """
    problem = engine.engine_problem()
    if problem is not None:
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    engine.reap()


@pytest.fixture(scope="session")
def images(docker_engine: None) -> None:
    """Stand for the stack's images being there; the first time this takes about a minute."""
    ensure_images()


@pytest.fixture(scope="session")
def older_postgres(images: None) -> str:
    """Give the name of an older PostgreSQL's image, for versions that do not match; another minute the first time."""
    from tests.stack.images import OLDER_POSTGRES

    ensure_images(older_postgres=True)
    return OLDER_POSTGRES


@pytest.fixture(scope="session")
def chromium() -> str:
    """Give the path of Chromium: in CI a missing one is a failure, elsewhere the test is skipped with the reason."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    problem = "Chromium is missing; `tests/run.sh` installs it"
    if os.environ.get("CI"):
        pytest.fail(problem)
    pytest.skip(problem)


@pytest.fixture(scope="module")
def small_stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a running stack with 5 MB of mail, shared by the tests of a module: they leave it as they found it."""
    stack = create_stack(tmp_path_factory.mktemp("small") / "stack")
    yield stack
    stack.destroy()


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """Give a directory on a disk: `tmp_path` may be in memory."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        yield Path(place)


@pytest.fixture
def make_stack(images: None, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Give a maker of stacks (the arguments of `create_stack`, its directory optional), all destroyed after the test."""
    made: list[Stack] = []

    def make(directory: Path | None = None, **options: object) -> Stack:
        place = directory or tmp_path / f"stack{len(made) + 1}"
        made.append(create_stack(place, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for stack in made:
        stack.destroy()
