"""P7: a backup taken while the application writes is of one moment, and restores to exactly that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli import Operator
from tests.stack.stack import Stack, create_stack, writer_counts

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

WRITES_PER_SECOND = 100


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("one moment") / "stack", megabytes=20)
    yield made
    made.destroy()


@pytest.mark.parametrize(
    "method",
    [
        ("hot",),
        pytest.param(("hot", "--format", "fast"), marks=pytest.mark.long),
        ("online",),
        ("complete", "--way", "copy first"),
    ],
    ids=" ".join,
)
def test_a_backup_under_writes_restores_to_one_moment_within_it(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory, method: tuple[str, ...]
) -> None:
    """The writer adds a mail, its attachment and the content in one transaction: in any one moment their numbers are equal."""
    operator = Operator(stack.directory, tmp_path_factory.mktemp("backups") / "repository")
    stack.set_writing(WRITES_PER_SECOND)
    first = writer_counts(stack)[0]
    made = operator.must("backup", *method)
    last = writer_counts(stack)[0]
    if method[0] != "complete":  # which restarts the application, and the writer with it
        assert last > first + 20, "nothing was written meanwhile: this proves nothing"
        stack.set_writing(0)

    assert operator.must("verify", made["name"])["verdict"] == "verified"
    operator.must("restore", made["name"], "--yes", "--no-quarantine")
    stack.wait_app()
    mails, attachments, contents = writer_counts(stack)
    assert mails == attachments == contents
    assert first <= mails <= last
    operator.must("commit", "--yes")
