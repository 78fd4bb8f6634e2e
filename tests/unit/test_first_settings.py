"""What `init` writes: settings that are settings, and units with a machine's own paths."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.core.errors import UsageError
from tasks.core.policy.settings import Settings, parse_settings
from tasks.core.stack.first_settings import FoundStack, UnitPaths, first_settings, installation_ids, unit_texts

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
EXAMPLE = (DEPLOYMENTS / "settings.example.yaml").read_text()
UNITS = {path.name: path.read_text() for path in (DEPLOYMENTS / "systemd").iterdir()}
REPOSITORY = Path("/var/backups/mailarchiver")


def read(text: str) -> Settings:
    return parse_settings(yaml.safe_load(text), source="the test")


@pytest.mark.parametrize(
    "directory",
    ["/srv/mail", "/srv/my mail", "/srv/post: #1", '/srv/Büro "x"', "/srv/{a}", "/srv/%i", "/opt/mailarchiver"],
)
def test_a_stack_stands_in_the_file_whatever_its_directory_is_called(directory: str) -> None:
    """Every comment stays, and only the places are other than the example's."""
    text = first_settings(EXAMPLE, [FoundStack("mail", Path(directory))], Path("/backups: here"))
    found = read(text).installations

    assert list(found) == ["main"]
    assert (found["main"].directory, found["main"].repository) == (Path(directory), Path("/backups: here"))
    assert found["main"].model_copy(update={"directory": None, "repository": None}) == read(EXAMPLE).installations["main"].model_copy(update={"directory": None, "repository": None})  # fmt: skip
    assert [line for line in EXAMPLE.splitlines() if line.strip().startswith("#")] == [line for line in text.splitlines() if line.strip().startswith("#")]  # fmt: skip


def test_several_stacks_have_repositories_of_their_own() -> None:
    stacks = [
        FoundStack("mail", Path("/srv/a")),
        FoundStack("Mail", Path("/srv/b"), project="mail-b"),
        FoundStack("büro", Path("/srv/c")),
    ]
    found = read(first_settings(EXAMPLE, stacks, REPOSITORY)).installations

    assert {name: (str(each.directory), str(each.repository), each.project) for name, each in found.items()} == {
        "mail": ("/srv/a", "/var/backups/mailarchiver/mail", None),
        "mail-2": ("/srv/b", "/var/backups/mailarchiver/mail-2", "mail-b"),
        "b-ro": ("/srv/c", "/var/backups/mailarchiver/b-ro", None),
    }


def test_a_machine_without_a_stack_gets_a_file_to_fill_in() -> None:
    text = first_settings(EXAMPLE, [], Path("/mnt/backups"), ["Looked at: nothing\nhere"])

    assert text.startswith("# Looked at: nothing here\n")
    assert "No Mail Archiver was found on this machine" in text
    assert read(text).installations["main"].repository == Path("/mnt/backups")


def test_ids_are_ids() -> None:
    assert installation_ids([]) == []
    assert installation_ids(["x" * 60, "x" * 60, "---"]) == ["x" * 28, "x" * 28 + "-2", "stack"]


def test_units_have_a_machines_own_paths() -> None:
    """Wherever the program, its settings and its state are, none of the repository's paths remains but systemd's own StateDirectory."""
    paths = UnitPaths(Path("/srv/my tools/100%/bin"), Path("/etc/own place/s.yaml"), Path("/mnt/state of it"))
    units = unit_texts(UNITS, paths)
    live = "\n".join(line for text in units.values() for line in text.splitlines() if not line.startswith("#"))

    assert "/opt/" not in live
    assert "/etc/mailarchiver-backup" not in live
    assert "/var/lib/mailarchiver-backup/" not in live
    assert 'ExecStart="/srv/my tools/100%%/bin/mailarchiver-backup" recover' in live
    assert 'Environment="MAILARCHIVER_BACKUP_SETTINGS=/etc/own place/s.yaml"' in live
    assert live.count("EnvironmentFile=/etc/own place/prefect.env") == 2
    assert "ConditionDirectoryNotEmpty=/mnt/state of it/journals" in live
    assert live.count('Environment="MAILARCHIVER_BACKUP_STATE=/mnt/state of it"') == 3

    plain = UnitPaths(Path("/opt/mailarchiver-backup/bin"), Path("/etc/mailarchiver-backup/settings.yaml"), Path("/var/lib/mailarchiver-backup"))  # fmt: skip
    assert unit_texts(UNITS, plain) == UNITS


@pytest.mark.parametrize("path", ["/opt/a\nExecStart=/bin/false", '/opt/"', "/opt/$HOME", "/opt/\\x", "relative"])
def test_a_path_that_a_unit_cannot_name_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="systemd unit"):
        unit_texts(UNITS, UnitPaths(Path(path), Path("/etc/s.yaml"), Path("/var/lib/x")))
