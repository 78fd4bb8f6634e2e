"""A copy that is told to end does so at once, leaves no program behind, and the next one goes on where it was."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.cli import PROGRAM, run_program
from tests.integration.copying import arrived, copying_to, night, sending
from tests.settings import write_settings
from tests.stack.stack import wait_until
from tests.targets import serving
from tests.warm import start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_copy_that_is_ended_goes_on_where_it_was(tmp_path: Path, number: int) -> None:
    """Killed in the middle of the second part: the first is not sent again, and rclone dies with us."""
    with serving(tmp_path, "sftp") as server:
        config = copying_to(tmp_path, "away:bucket", sections={"away": server.section}, bandwidth=2**20)
        made = night(config, large=True)
        target = {"name": "a", "remote": "away:bucket", "part_bytes": 2**20}
        wanted = {
            "directory": config.directory,
            "repository": config.repository,
            "rclone_config": config.settings.rclone_config,
        }
        for name, limit in (("slow", {"bandwidth": 2**20}), ("quick", {})):
            wanted["rclone_config"] = str(config.settings.rclone_config)  # type: ignore[assignment]
            write_settings(tmp_path / f"{name}.yaml", {"main": {**wanted, "copies": [{**target, **limit}]}})
        with open(os.devnull, "r+b") as nothing:
            command = [PROGRAM, "copy", "--settings", str(tmp_path / "slow.yaml")]
            child = start(command, os.environ, os.getcwd(), [nothing.fileno()] * 3)
        wait_until(lambda: f"{made.file}.part-0001" in arrived(made), 60, "the first part did not arrive")
        wait_until(lambda: sending(config), 60, "the second part was not begun")
        os.kill(child.pid, number)
        child.wait(20)
        wait_until(lambda: not sending(config), 20, "rclone still runs")

        code, out, err = run_program([PROGRAM, "copy", "--settings", str(tmp_path / "quick.yaml"), "--json"])
        assert code == 0, err
        assert json.loads(out)["targets"][0]["sent_bytes"] <= made.bytes - 2**20
        parts = sorted((server.files / "bucket").glob(f"{made.file}.part-*"))
        assert b"".join(each.read_bytes() for each in parts) == (config.repository / made.file).read_bytes()
