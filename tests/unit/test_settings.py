"""The settings file: every problem at once, in words, and nothing unknown passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.adapters.host.settings_file import SETTINGS_VARIABLE, load_settings, settings_path
from tasks.core.errors import UsageError
from tasks.core.policy.setting_types import parse_bytes
from tasks.core.policy.settings import Settings, parse_settings

EXAMPLE = Path(__file__).parents[2] / "deployments" / "settings.example.yaml"
GOOD = {"directory": "/srv/mailarchiver", "repository": "/srv/backups"}


def parse(text: str) -> Settings:
    """Check settings given as YAML."""
    return parse_settings(yaml.safe_load(text), source="the test")


def problems_of(own: dict[str, Any], **top: Any) -> str:
    """Give the message about an installation called main with these keys added."""
    with pytest.raises(UsageError) as caught:
        parse_settings({"installations": {"main": {**GOOD, **own}}, **top}, source="the test")
    assert caught.value.exit_code == 2
    return caught.value.message


def test_two_paths_are_enough() -> None:
    """The defaults are safe: the guide's format and its thirty days, never fewer than three verified backups."""
    main = parse("installations: {main: {directory: /srv/mailarchiver, repository: /srv/backups}}").installations[
        "main"
    ]

    assert (main.directory, main.repository) == (Path("/srv/mailarchiver"), Path("/srv/backups"))
    assert (main.format, main.retention.keep_days, main.retention.minimum_verified) == ("guide", 30, 3)


def test_defaults_apply_section_by_section() -> None:
    """An installation's section replaces that of the defaults as a whole; others keep theirs."""
    settings = parse(
        """
        defaults: {format: fast, minimum_free_bytes: 10 GB, retention: {keep_days: 90, keep_monthly: 12}}
        installations:
          main: {directory: /a, repository: /b}
          other: {directory: /c, repository: /b, retention: {keep_last: 5}}
        """
    )
    main, other = settings.installations["main"], settings.installations["other"]

    assert (main.format, main.minimum_free_bytes, main.retention.keep_days) == ("fast", 10**10, 90)
    assert (other.format, other.retention.keep_days, other.retention.keep_last) == ("fast", 0, 5)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10 GB", 10**10),
        ("512 MiB", 512 * 2**20),
        ("1.5G", 3 * 2**29),
        ("0", 0),
        ("4096", 4096),
        (" 2 tb ", 2 * 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes are written as people write them."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"repositry": "/x"}, "installations.main.repositry: unknown key; did you mean repository?"),
        ({"retention": {"keep_day": 3}}, "installations.main.retention.keep_day: unknown key; did you mean keep_days?"),
        ({"retention": {}}, "installations.main.retention: keeps nothing"),
        ({"retention": {"keep_days": 0, "keep_last": 0}}, "installations.main.retention: keeps nothing"),
        (
            {"retention": {"keep_days": -1}},
            "installations.main.retention.keep_days: should be greater than or equal to 0",
        ),
        ({"retention": {"keep_days": True}}, "installations.main.retention.keep_days: should be a valid integer"),
        (
            {"retention": {"keep_days": 3, "minimum_verified": 0}},
            "minimum_verified: should be greater than or equal to 1",
        ),
        ({"directory": "srv/mail"}, "installations.main.directory: is not an absolute path, but it is 'srv/mail'"),
        ({"directory": "/srv/../etc"}, 'installations.main.directory: contains ".."'),
        ({"repository": None}, "installations.main.repository: is not an absolute path, but it is None"),
        ({"repository": "/srv/mailarchiver"}, "lies in the data of main"),
        ({"repository": "/srv/mailarchiver/postgres-data/b"}, "lies in the data of main"),
        ({"format": "zip"}, "installations.main.format: should be 'guide' or 'fast', but it is 'zip'"),
        ({"minimum_free_bytes": "10 parsecs"}, "installations.main.minimum_free_bytes: is not a size"),
        ({"minimum_free_bytes": -1}, "should be greater than or equal to 0, but it is -1"),
        ({"schedule": {"backup": "at night"}}, "installations.main.schedule.backup: is not a cron schedule"),
        ({"schedule": {"timezone": "Mars/Olympus"}}, "installations.main.schedule.timezone: is not a time zone"),
        ({"timeouts": {"dump_seconds": 0}}, "installations.main.timeouts.dump_seconds: should be greater than 0"),
        ({"notifications": [{"kind": "ping"}]}, "installations.main.notifications.0.url: is missing"),
        (
            {"notifications": [{"kind": "ping", "url": "x", "event": []}]},
            "notifications.0.event: unknown key; did you mean events?",
        ),
    ],
)
def test_each_problem_in_words(own: dict[str, Any], words: str) -> None:
    """A problem says where it is, what it is, what was seen, and what was probably meant."""
    assert words in problems_of(own)


def test_every_problem_at_once() -> None:
    """Nobody has to repair a file one error at a time."""
    message = problems_of(
        {"formt": "fast", "directory": "here", "retention": {}}, defaults={"minimum_free_bites": 3}, instalations={}
    )

    assert "5 problems" in message
    for place in ("formt", "directory", "retention", "defaults.minimum_free_bites", "did you mean installations?"):
        assert place in message


def test_the_address_of_a_notification_is_a_secret() -> None:
    """It carries tokens: neither the value nor an error shows it."""
    text = (
        "installations: {main: {directory: /a, repository: /b, notifications: [{kind: ping, url: 'https://canary'}]}}"
    )

    assert "canary" not in repr(parse(text))
    assert "canary" not in problems_of({"notifications": [{"kind": "ping", "url": ["canary"]}]})
    assert "canary" not in problems_of({"notifications": [{"kind": "png", "url": "canary"}]})


def test_one_directory_twice() -> None:
    """Two ids of one directory would back up each other's work."""
    with pytest.raises(UsageError, match="directory of a too"):
        parse("installations: {a: {directory: /x, repository: /b}, b: {directory: /x, repository: /b}}")


@pytest.mark.parametrize("name", ["Main", "-a", "a b", "ä", "a" * 33, "a/b", ""])
def test_ids_are_plain(name: str) -> None:
    """Ids become names of files, projects and locks."""
    with pytest.raises(UsageError, match="is not an id"):
        parse_settings({"installations": {name: GOOD}}, source="the test")


@pytest.mark.parametrize(
    "text", ["", "[]", "installations:", "installations: []", "installations: {main: 3}", "just words"]
)
def test_other_shapes_are_refused(text: str) -> None:
    """A file without installations is no settings file."""
    with pytest.raises(UsageError):
        parse(text)


def write(place: Path, text: str, mode: int = 0o600) -> Path:
    """Write a settings file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(mode)
    return place


def test_a_key_given_twice_is_told_with_its_lines(tmp_path: Path) -> None:
    """YAML silently takes the last; here both lines are named."""
    text = "installations:\n  main:\n    directory: /a\n    repository: /b\n    directory: /c\n  main: {}\n"
    with pytest.raises(UsageError) as caught:
        load_settings(write(tmp_path / "s.yaml", text))

    assert "line 5: the key directory was given in line 3 already" in caught.value.message
    assert "line 6: the key main was given in line 2 already" in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "are not YAML"),
        ("a: 1\n b: 2", "are not YAML"),
        ("? [a]\n: 1", "unhashable|are not YAML"),
        ("!!python/none", "YAML"),
    ],
)
def test_broken_yaml(tmp_path: Path, text: str, words: str) -> None:
    """A file that is no YAML is told in one sentence."""
    with pytest.raises(UsageError, match=words):
        load_settings(write(tmp_path / "s.yaml", text))


def test_files_that_others_may_change_or_that_are_missing(tmp_path: Path) -> None:
    """Anyone who can change the settings chooses which directory root backs up, and to where."""
    with pytest.raises(UsageError, match="every user may write"):
        load_settings(write(tmp_path / "s.yaml", EXAMPLE.read_text(), 0o666))
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_settings(tmp_path / "missing.yaml")


def test_links_to_one_directory(tmp_path: Path) -> None:
    """A link does not make a second installation."""
    (tmp_path / "link").symlink_to(tmp_path)
    text = f"installations: {{a: {{directory: {tmp_path}, repository: /b}}, b: {{directory: {tmp_path}/link, repository: /b}}}}"
    with pytest.raises(UsageError, match="name one directory twice: a and b"):
        load_settings(write(tmp_path / "s.yaml", text))


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, then the environment, then the system's, then the user's own."""
    monkeypatch.setattr("tasks.adapters.host.settings_file.SYSTEM_SETTINGS", tmp_path / "etc" / "settings.yaml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(SETTINGS_VARIABLE, raising=False)
    assert settings_path() is None
    with pytest.raises(UsageError, match="there is no settings file"):
        load_settings()
    own = write(tmp_path / "config" / "mailarchiver-backup" / "settings.yaml", "")
    assert settings_path() == own
    system = write(tmp_path / "etc" / "settings.yaml", "")
    assert settings_path() == system
    monkeypatch.setenv(SETTINGS_VARIABLE, "/elsewhere.yaml")
    assert settings_path() == Path("/elsewhere.yaml")
    assert settings_path(tmp_path) == tmp_path


def test_the_example_is_valid_and_names_every_key(tmp_path: Path) -> None:
    """The documented example is what the program reads."""
    settings = load_settings(write(tmp_path / "s.yaml", EXAMPLE.read_text()))
    main = settings.installations["main"]
    keys = set(type(main).model_fields)
    for section in (main.schedule, main.retention, main.verification, main.staging, main.timeouts, main.alarms):
        keys |= set(type(section).model_fields)

    assert {key for key in keys if f"{key}:" not in EXAMPLE.read_text()} == set()
