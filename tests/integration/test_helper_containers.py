"""Helper containers go with their volumes, whatever happens to the process that made them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.adapters.engine import containers, resources
from tasks.adapters.engine.labels import HELPER_LABEL
from tasks.adapters.host.journals import list_journals
from tasks.adapters.stack.discovery import discover
from tasks.recovery.recover import recover
from tasks.restore.directory_beside import platform_of
from tests.stack.stack import Stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

PROBE = """
import sys; from pathlib import Path
from tasks.adapters.stack.discovery import discover; from tasks.restore.directory_beside import platform_of
platform_of(discover(Path(sys.argv[1])))
"""


def started(stack: Stack) -> subprocess.Popen[bytes]:
    """Look at the platform in a process that can be killed."""
    return subprocess.Popen(
        [sys.executable, "-c", PROBE, str(stack.directory)], env=os.environ, stderr=subprocess.DEVNULL
    )


def helpers() -> dict[str, list[str]]:
    """Give the helper containers that this test's journals tell of, each with its anonymous volumes."""
    marks = [path.read_text().partition('"mark": "')[2][:16] for path in list_journals()]
    return {
        each.id: [mount.source for mount in each.mounts if mount.kind == "volume"]
        for mark in marks
        if mark
        for each in containers.containers(label={HELPER_LABEL: mark})
    }


def test_the_image_is_asked_and_nothing_stays(small_stack: Stack) -> None:
    """The container that was asked is gone, and so is its journal."""
    assert platform_of(discover(small_stack.directory)).major == 17
    assert list_journals() == []


def test_a_kill_while_the_image_is_asked_leaves_no_container_and_no_volume(small_stack: Stack) -> None:
    """The helper's image declares a volume, which Docker makes without a name."""
    for _ in range(10):  # a container that is asked lives for a moment only, which a look may miss
        process = started(small_stack)
        while process.poll() is None and not helpers():
            pass
        if process.poll() is None:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = helpers()
    done = recover(small_stack.directory)

    assert all(each.settled for each in done), done
    for container, volumes in left.items():
        assert volumes
        assert containers.container(container) is None
        assert [name for name in volumes if resources.volume_mountpoint(name)] == []


@pytest.mark.parametrize("_", range(2))
def test_a_kill_while_docker_is_still_making_it(small_stack: Stack, _: int) -> None:
    """Docker makes the container all the same, a moment after its asker is dead: `recover` waits for it."""
    process = started(small_stack)
    wait_until(list_journals, 30, "no journal was written")
    process.send_signal(signal.SIGKILL)
    process.wait()
    mark = Path(list_journals()[0]).read_text().partition('"mark": "')[2][:16]

    recover(small_stack.directory)

    assert list_journals() == []
    assert containers.containers(label={HELPER_LABEL: mark}) == []
