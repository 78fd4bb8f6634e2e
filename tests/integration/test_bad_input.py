"""Whatever comes in from outside, the answer is an exit code and a sentence: never a traceback, never that something was unexpected.

The commands run in this process, through the program's own command line.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from deployments.cli.program import app
from tasks.adapters.host.settings_file import load_settings
from tasks.core.errors import UsageError
from tests.integration.archives import NAME, make_archive

pytestmark = pytest.mark.docker

LONG = "n" * 6000
# Neither a name nor a path.
IMPOSSIBLE = ["a\0b", LONG, "\udcff\udcfe", "/" + "a/" * 3000, "x/" + "y" * 300]
COMMANDS: list[tuple[str, ...]] = [
    ("list",), ("backup", "hot"), ("backup", "auto"), ("backup", "complete"), ("verify",), ("prune",), ("status",), ("doctor",), ("recover",),
    ("check", "latest"), ("restore", "latest", "--yes"), ("rollback", "--yes"), ("commit", "--yes"), ("lift-quarantine",), ("accept-repository",),
    ("upgrade", "--to", "postgres:17", "--yes"),
    ("upgrade", "--application", "s1t5/mailarchiver:2609.1", "--yes"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep this process's logging and settings out of it: the runner closes the streams that the program logs to."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.delenv("MAILARCHIVER_BACKUP_SETTINGS", raising=False)
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory with an empty stack's directory, a repository, and a file in it."""
    (tmp_path / "stack").mkdir()
    (tmp_path / "repository").mkdir()
    (tmp_path / "file").write_bytes(b"\x00\xff\x1f\x8b binary")
    return tmp_path


def run(*words: str, environment: dict[str, str] | None = None) -> Result:
    """Run a command and insist on a decent answer."""
    done = CliRunner().invoke(app, list(words), env=environment)
    said = done.stderr + done.stdout
    shown = [word[:50] for word in words]
    assert done.exception is None or isinstance(done.exception, SystemExit), (shown, repr(done.exception))
    assert "unexpected" not in said.lower(), (shown, said)
    assert "Traceback" not in said, (shown, said)
    assert done.exit_code in (0, 1, 2), (shown, said)
    if done.exit_code:
        assert len(said) < 20_000, (shown, said[:500])
    return done


def at(place: Path) -> list[str]:
    return ["--directory", str(place / "stack"), "--repository", str(place / "repository")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_options_that_can_be_no_name_and_no_path_are_wrong_usage(command: tuple[str, ...], place: Path) -> None:
    """Exit code 2, with the option named, before anything is looked at."""
    for value in IMPOSSIBLE:
        for option in ("--directory", "--repository", "--installation", "--project"):
            done = run(*command, *at(place), option, value)
            assert done.exit_code == 2, (option, value[:20], done.stderr)
            assert option[2:] in done.stderr
        assert run(*command, "--settings", value).exit_code == 2
    for option, value in (
        ("--installation", "../../x"),
        ("--installation", "Main"),
        ("--project", "a b"),
        ("--project", ".."),
    ):
        assert run(*command, *at(place), option, value).exit_code == 2


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_places_that_are_not_what_they_should_be(command: tuple[str, ...], place: Path) -> None:
    """A file where a directory is wanted, what is not there, devices, links in a circle."""
    (place / "circle").symlink_to("circle")
    for wrong in (place / "file", place / "file" / "below", Path("/dev/null"), place / "circle"):
        assert run(*command, "--directory", str(place / "stack"), "--repository", str(wrong)).exit_code == 2, wrong
        assert run(*command, "--directory", str(wrong), "--repository", str(place / "repository")).exit_code in (
            1,
            2,
        ), wrong
        assert run(*command, "--settings", str(wrong)).exit_code == 2 or wrong == Path("/dev/null"), wrong
    for wrong in ("/proc/1/absent", "/nonexistent", "relative/../x"):
        run(*command, "--directory", wrong, "--repository", str(place / "repository"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_environment_full_of_rubbish(command: tuple[str, ...], place: Path) -> None:
    """The state's place, Docker's address and configuration, the home."""
    for environment in (
        {"MAILARCHIVER_BACKUP_STATE": "relative"}, {"MAILARCHIVER_BACKUP_STATE": str(place / "file")},
        {"MAILARCHIVER_BACKUP_STATE": "/" + LONG}, {"DOCKER_HOST": "rubbish"}, {"DOCKER_HOST": "tcp://[::"},
        {"DOCKER_HOST": f"unix:///{LONG[:300]}"}, {"DOCKER_CONFIG": str(place / "file")}, {"HOME": "relative"},
        {"XDG_CONFIG_HOME": LONG}, {"MAILARCHIVER_BACKUP_SETTINGS": str(place)}, {"MAILARCHIVER_BACKUP_SETTINGS": LONG},
    ):  # fmt: skip
        given = [] if "MAILARCHIVER_BACKUP_SETTINGS" in environment else at(place)
        done = run(*command, *given, environment=environment)
        if "MAILARCHIVER_BACKUP_SETTINGS" in environment:
            assert done.exit_code == 2, done.stderr


@pytest.mark.parametrize(
    "backup",
    [
        *IMPOSSIBLE,
        "../x",
        "latest/..",
        "/dev/zero",
        "mailarchiver-backup-99999999-999999",
        f"{NAME}-{'9' * 6000}",
        "ENVIRONMENT",
        "FILE",
    ],
)
def test_a_backup_that_is_none(backup: str, place: Path) -> None:
    """A name that nothing has, a file that is no archive, a device."""
    backup = {"FILE": str(place / "file"), "ENVIRONMENT": "$HOME"}.get(backup, backup)
    for command in (["check"], ["verify"], ["restore", "--yes"]):
        assert run(*command, *at(place), "--", backup).exit_code in (1, 2)


@pytest.mark.parametrize("into", [*IMPOSSIBLE, "FILE", "/proc/1/x"])
def test_a_fresh_host_in_an_impossible_place(into: str, place: Path) -> None:
    """Nothing of the archive is written anywhere."""
    archive = make_archive(place / "repository").path
    into = str(place / "file" / "x") if into == "FILE" else into
    assert run("restore", str(archive), "--into", into).exit_code in (1, 2)


RUBBISH = [
    b"", b"\x00", b"\xff\xfe", b"[]", b"null", b"{}", b"[" * 5000, b'{"file": 7}', b'{"manifest": {"version": 99}}', b"9" * 6000,
    b'{"bytes": ' + b"9" * 5000 + b"}", b'{"manifest": {"created_at": "9999-99-99"}}',
]  # fmt: skip


def test_records_full_of_rubbish(place: Path) -> None:
    """They make an archive a legacy one; what is beside it and says nothing is said."""
    archive = make_archive(place / "repository").path
    record = archive.with_name(f"{NAME}.manifest.json")
    good = record.read_bytes()
    created = b'"created_at": "'
    odd = [good.replace(created, created + each) for each in (b"9", b"0000-00-00T", b"99999999999999999-")]
    odd += [
        good.replace(b'"bytes": ', b'"bytes": -'),
        good.replace(b'"bytes": ', b'"bytes": ' + b"9" * 4000),
        good[:-40],
        good * 2,
    ]
    for content in (*RUBBISH, *odd):
        record.write_bytes(content)
        for command in (["list"], ["status"], ["prune", "--dry-run"], ["prune"], ["check", NAME], ["verify", NAME]):
            run(*command, *at(place))
        assert archive.exists()
        assert run("check", str(archive)).exit_code in (0, 1)
    record.unlink()
    record.mkdir()
    for command in (["list"], ["status"], ["prune"], ["check", NAME]):
        run(*command, *at(place))


def test_a_state_full_of_rubbish(place: Path, state_directory: Path) -> None:
    """Histories, notes of alarms and of repositories, and journals that nobody can read."""
    make_archive(place / "repository")
    run("status", *at(place), "--alarm")
    run("accept-repository", *at(place))
    files = [path for path in state_directory.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert files
    (state_directory / "journals").mkdir(mode=0o700, exist_ok=True)
    files.append(state_directory / "journals" / "1-abcdef-0001-swap.json")
    for path in files:
        before = path.read_bytes() if path.exists() else None
        for content in RUBBISH:
            path.write_bytes(content)
            for command in (["status", "--alarm"], ["list"], ["prune"], ["recover"], ["backup", "hot"]):
                run(*command, *at(place))
        path.write_bytes(before) if before is not None else path.unlink()


@pytest.mark.parametrize(
    "words",
    [("serve", "--port", "0"), ("serve", "--port", "65536"), ("serve", "--port", "9" * 6000), ("serve", "--port", "x"), ("serve", "--host", "a\0b"),
     ("serve", "--host", LONG), ("serve", "--host", ""), ("serve",), ("deploy",)],
)  # fmt: skip
def test_serving_with_wrong_words(words: tuple[str, ...], place: Path) -> None:
    """Exit code 2, before a server is begun."""
    for wrong in (str(place / "absent"), str(place / "file"), str(place), "a\0b", LONG):
        assert run(*words, "--settings", wrong).exit_code == 2


def settings_of(place: Path, **changes: Any) -> dict[str, Any]:
    return {
        "installations": {
            "main": {"directory": str(place / "stack"), "repository": str(place / "repository"), **changes}
        }
    }


WRONG: list[tuple[str, Any]] = [
    ("retention", {"keep_days": 800_000}), ("retention", {"keep_last": 10**30}), ("retention", {"keep_days": -1}),
    ("retention", {"keep_days": True}), ("retention", []), ("retention", None), ("minimum_free_bytes", "9" * 6000),
    ("minimum_free_bytes", "9" * 400 + " TB"), ("minimum_free_bytes", 10**40), ("minimum_free_bytes", {}), ("format", "zip"),
    ("timeouts", {"dump_seconds": float("inf")}), ("timeouts", {"dump_seconds": float("nan")}), ("timeouts", {"dump_seconds": 1e300}),
    ("timeouts", {"postgres_stop_seconds": 10**12}), ("alarms", {"backup_within_hours": 1e300}), ("schedule", {"timezone": "a\0b"}),
    ("schedule", {"timezone": LONG}), ("schedule", {"timezone": "Europe"}), ("schedule", {"backup": LONG}), ("schedule", {"backup": 7}), ("schedule", {"complete": "99 99 * * *"}),
    ("repository", "relative"), ("repository", "/a\0b"), ("repository", "/" + LONG), ("repository", 7), ("repository", ["/x"]),
    ("directory", "/x/../y"), ("project", "A B"), ("project", LONG), ("notifications", "http://x"), ("notifications", [{"kind": "smoke"}]),
    ("notifications", [None]), ("log_file", {"a": 1}), (LONG, 1), ("staging", {"memory_bytes": "1 B"}), ("verification", {"every": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key[:20]}-{str(value)[:30]}" for key, value in WRONG])
def test_settings_with_a_wrong_value(key: str, value: Any, place: Path) -> None:
    """Exit code 2, and the key is named."""
    file = place / "settings.yaml"
    file.write_text(yaml.safe_dump(settings_of(place, **{key: value})))
    done = run("list", "--settings", str(file))
    assert done.exit_code == 2, done.stdout
    assert key[:20] in done.stderr


TEXTS = [
    "", "\n", "x", "[]", "7", "null", "---\n---\n", "installations:", "installations: []", "installations: {1: {}}", "installations: {~: {}}",
    "installations: {[1, 2]: {}}", "installations: {main: 2026-13-45}", "a: 2026-02-31 99:99:99", "a: " + "9" * 6000, "a: " + "[" * 4000,
    "a: &a [*a]", "<<: 7", "a: !!python/object:os.system x", "a: !!binary '*'", "a: !!int x", "a: !!float x", "a: !!timestamp x", "? [a]\n: b",
    "\t- x", "a: 0b2", "a: 190:20:30.15", "a: .inf", "installations: {main: {directory: /x, repository: /x}}", "%YAML 9.9\n--- {}", "a: \\ud800",
    'a: "\\ud800"', "installations: {main: &m {<<: *m}}", "installations:\n  main: {directory: /srv/a, repository: /srv/a/postgres-data/b}",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=[repr(text[:30]) for text in TEXTS])
def test_settings_that_are_none(text: str, place: Path) -> None:
    """Exit code 2."""
    (place / "settings.yaml").write_text(text)
    assert run("list", "--settings", str(place / "settings.yaml")).exit_code == 2


@pytest.mark.parametrize("content", [b"\x00", b"\xff\xfe\x00", b"\x1f\x8b\x08", b"a: \x00", b"\xef\xbb\xbfa: b"])
def test_settings_that_are_no_text(content: bytes, place: Path) -> None:
    """Exit code 2."""
    (place / "settings.yaml").write_bytes(content)
    assert run("list", "--settings", str(place / "settings.yaml")).exit_code == 2


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3), max_leaves=8
)
KEYS = [
    "directory",
    "repository",
    "retention",
    "schedule",
    "alarms",
    "timeouts",
    "notifications",
    "staging",
    "verification",
    "format",
]
sections = st.dictionaries(st.sampled_from(KEYS) | scalars, values, max_size=4)
documents = st.dictionaries(
    st.sampled_from(["installations", "defaults"]) | scalars,
    values | st.dictionaries(st.sampled_from(["main", "other"]) | scalars, sections | values, max_size=3) | sections,
    max_size=3,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@example(text="'")  # YAML's own words have the word in them
@given(text=st.one_of(st.text(), documents.map(yaml.safe_dump), values.map(yaml.safe_dump)))
def test_any_settings_are_read_or_refused_in_words(text: str, tmp_path: Path) -> None:
    """Either they are settings, or UsageError says why not."""
    file = tmp_path / "settings.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    said = None
    try:
        load_settings(file)
    except UsageError as error:
        said = error

    assert said is None or (said.hint and "unexpected" not in str(said).lower())


def test_a_repository_within_what_is_backed_up(small_stack: Any, tmp_path: Path) -> None:
    """Within the data or the keys, or around them; through a link too. Nothing is made there."""
    data, keys = small_stack.directory / "postgres-data", small_stack.directory / "data-protection-keys"
    (tmp_path / "link").symlink_to(data)
    for wrong in (data, data / "backups", keys, keys / "deep" / "er", small_stack.directory, tmp_path / "link" / "b"):
        for command in (["backup", "hot"], ["backup", "online"], ["backup", "complete"]):
            done = run(*command, "--directory", str(small_stack.directory), "--repository", str(wrong))
            assert done.exit_code == 2, (wrong, done.stderr)
            assert "lie in each other" in done.stderr
    assert not (data / "backups").exists()
    assert not (keys / "deep").exists()
    shutil.rmtree(tmp_path / "link", ignore_errors=True)
