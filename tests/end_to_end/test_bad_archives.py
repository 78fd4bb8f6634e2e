"""P10: a sample of the corpus through the commands: an error of ours each time, and the stack and its repository as before."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tasks.adapters.archive.archive_source import record_path_of
from tests.cli import Operator
from tests.content import content
from tests.corpus.test_corpus import describe, put
from tests.integration.archives import NAME
from tests.stack.stack import Stack

SAMPLE = ("name: far up", "manifest: a member that leads out")


@pytest.fixture(scope="module")
def repository(small_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.mark.parametrize("name", SAMPLE)
def test_check_verify_and_restore_refuse_it(small_stack: Stack, repository: Path, name: str) -> None:
    operator = Operator(small_stack.directory, repository)
    before = content(small_stack)
    path = put(repository, name)
    describe(path)

    for words in (("check", str(path)), ("verify", str(path)), ("restore", str(path), "--yes")):
        answer = operator.run(*words)
        assert answer.code in (1, 2), words
        assert "Traceback" not in answer.stderr
        assert "unexpected" not in answer.stderr

    assert content(small_stack) == before


def test_a_fifo_as_record_hangs_nothing(small_stack: Stack, repository: Path) -> None:
    """It hung list, check, prune and status."""
    operator = Operator(small_stack.directory, repository)
    path = repository / f"{NAME}.tar.gz"
    shutil.rmtree(record_path_of(path), ignore_errors=True)
    record_path_of(path).unlink(missing_ok=True)
    path.write_bytes(b"\x1f\x8b")
    os.mkfifo(record_path_of(path))

    for words in (("list",), ("check", str(path)), ("prune", "--dry-run"), ("status",)):
        answer = operator.run(*words, timeout_seconds=60)
        assert answer.value, words
        assert "unexpected" not in answer.stderr
