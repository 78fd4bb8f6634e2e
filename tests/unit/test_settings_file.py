"""A settings file may be anything: it is read without waiting, within bounds, and refused in words (exit code 2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.adapters.host.outside_files import SETTINGS
from tasks.adapters.host.settings_file import load_settings
from tasks.core.errors import UsageError


def refused(place: Path) -> str:
    with pytest.raises(UsageError) as error:
        load_settings(place)
    assert error.value.exit_code == 2
    return error.value.message


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "settings.yaml", 0o600)

    assert "it is no regular file" in refused(tmp_path / "settings.yaml")


def test_a_device_without_end_is_not_read() -> None:
    assert "it is no regular file" in refused(Path("/dev/zero"))


def test_a_directory_is_none(tmp_path: Path) -> None:
    assert "it is a directory" in refused(tmp_path)


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    place = tmp_path / "settings.yaml"
    with place.open("wb") as file:
        file.truncate(20 << 30)

    assert f"more than {(SETTINGS.limit_bytes or 0):,} bytes" in refused(place)


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
        "a: &a [*a]\n",
        "installations: &x {main: *x}\n",
    ],
    ids=["laughs", "itself", "itself in a mapping"],
)
def test_aliases_that_stand_for_millions_are_refused(tmp_path: Path, text: str) -> None:
    place = tmp_path / "settings.yaml"
    place.write_text(text)
    place.chmod(0o600)

    assert "aliases stand for more than" in refused(place)


def test_deep_brackets_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "settings.yaml"
    place.write_text("[" * 5000)
    place.chmod(0o600)

    assert "settings in" in refused(place)
