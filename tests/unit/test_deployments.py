"""What the settings make of prefect.yaml, and of the addresses of notifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.password import AUTH_VARIABLE, CLIENT_VARIABLE, auth_string, client_environment, require_auth_string
from deployments.serve import PREFECT_FILE, make_private, rendered, server_environment
from deployments.webhooks import Webhook, webhooks
from tasks.core.errors import UsageError
from tasks.core.policy.settings import Settings, parse_settings


def settings_of(**installations: dict[str, Any]) -> Settings:
    """Make settings from what each installation has besides its places."""
    full = {
        name: {"directory": f"/srv/{name}", "repository": f"/backups/{name}", **own}
        for name, own in installations.items()
    }
    return parse_settings({"installations": full}, source="the test")


def test_each_installation_has_its_own_schedules() -> None:
    """One entry for each installation, with its own hour, zone and parameters; what is switched off is inactive."""
    settings = settings_of(
        main={"schedule": {"backup": "10 4 * * *", "timezone": "Europe/Vienna"}},
        office={"schedule": {"complete": "15 5 * * 0", "verification": None}, "verification": {"when": "on_schedule"}},
    )
    deployments = {each["name"]: each for each in rendered(PREFECT_FILE, settings)["deployments"]}

    nightly = {each["slug"]: each for each in deployments["automated-backup"]["schedules"]}
    assert set(nightly) == {"nightly-main", "nightly-office"}
    assert (nightly["nightly-main"]["cron"], nightly["nightly-main"]["timezone"]) == ("10 4 * * *", "Europe/Vienna")
    assert nightly["nightly-office"]["parameters"]["installation"] == "office"
    assert [each["active"] for each in deployments["complete-backup"]["schedules"]] == [False, True]
    assert [each["active"] for each in deployments["restore-verification"]["schedules"]] == [True, False]
    assert [each["parameters"]["installation"] for each in deployments["watch"]["schedules"]] == ["main", "office"]
    assert deployments["guided-restore"]["schedules"] == []


def test_the_plain_list_and_default_settings_schedule_the_same() -> None:
    """`prefect deploy --all` in a checkout, `deploy`, `serve`, the settings' example: no weekly downtime unasked."""
    plain = {
        each["name"]: each.get("schedules", []) for each in yaml.safe_load(PREFECT_FILE.read_text())["deployments"]
    }
    made = {each["name"]: each["schedules"] for each in rendered(PREFECT_FILE, settings_of(main={}))["deployments"]}
    example = parse_settings(
        yaml.safe_load(PREFECT_FILE.with_name("settings.example.yaml").read_text()), source="the example"
    )

    assert made == plain
    assert {each["name"]: each["schedules"] for each in rendered(PREFECT_FILE, example)["deployments"]} == plain
    assert [each["active"] for each in plain["complete-backup"]] == [False]


def test_two_installations_at_the_same_hour_wait_for_each_other() -> None:
    """A limit that cancels would silently lose the second one's night; a lease's would end a run whose server is away."""
    for deployment in rendered(PREFECT_FILE, settings_of(main={}, office={}))["deployments"]:
        if deployment["schedules"]:
            assert deployment["work_pool"]["work_queue_name"] in ("backups", "verifications", "watches", "copies")
        assert "concurrency_limit" not in deployment


def test_no_server_runs_without_a_password(
    monkeypatch: pytest.MonkeyPatch, state_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first start makes one that only this user reads, and prints it once; an operator's own is kept; half of one is refused."""
    for variable in (AUTH_VARIABLE, CLIENT_VARIABLE, "PREFECT_API_URL"):
        monkeypatch.delenv(variable, raising=False)
    assert client_environment() == {}
    made = server_environment(tmp_path, host="127.0.0.1", port=4200)[AUTH_VARIABLE]
    assert len(made) > 30
    assert capsys.readouterr().err.count(made) == 1
    again = server_environment(tmp_path, host="0.0.0.0", port=4200)
    assert (again[AUTH_VARIABLE], again[CLIENT_VARIABLE]) == (made, made)
    assert capsys.readouterr() == ("", "")
    assert client_environment() == {CLIENT_VARIABLE: made}
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    assert client_environment() == {}
    (file,) = state_directory.glob("prefect/*.json")
    assert file.stat().st_mode & 0o777 == 0o600

    monkeypatch.setenv(AUTH_VARIABLE, "operator:secret")
    assert server_environment(tmp_path, host="0.0.0.0", port=4200)[CLIENT_VARIABLE] == "operator:secret"
    monkeypatch.setenv(AUTH_VARIABLE, "operator:")
    with pytest.raises(UsageError, match="USER:PASSWORD"):
        server_environment(tmp_path, host="127.0.0.1", port=4200)


def test_the_units_password_is_serves_and_deploys_too(
    monkeypatch: pytest.MonkeyPatch, state_directory: Path, tmp_path: Path
) -> None:
    """`init` writes it beside the settings: one password for the machine's server, however it is started."""
    for variable in (AUTH_VARIABLE, CLIENT_VARIABLE, "PREFECT_API_URL"):
        monkeypatch.delenv(variable, raising=False)
    settings, written = tmp_path / "settings.yaml", tmp_path / "prefect.env"
    with pytest.raises(UsageError, match="without a password"):
        require_auth_string()
    written.write_text(f"# {AUTH_VARIABLE}=no:comment\nOTHER=1\n{AUTH_VARIABLE}=operator:from the file\n")
    assert auth_string(settings) == "operator:from the file"
    assert client_environment(settings) == {CLIENT_VARIABLE: "operator:from the file"}
    monkeypatch.setenv(AUTH_VARIABLE, "own:word")
    assert (auth_string(settings), require_auth_string()) == ("own:word", "own:word")
    monkeypatch.delenv(AUTH_VARIABLE)
    written.write_text(f"{AUTH_VARIABLE}=operator\n")
    with pytest.raises(UsageError, match="USER:PASSWORD"):
        auth_string(settings)


def test_what_former_versions_left_readable_is_made_private(tmp_path: Path) -> None:
    """Prefect's database among it; a file that a link leads to stays as it is."""
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o644)
    home = tmp_path / "home"
    (home / "below").mkdir(parents=True, mode=0o755)
    for file in (home / "prefect.db", home / "below" / "log"):
        file.write_text("")
        file.chmod(0o644)
    (home / "link").symlink_to(outside)
    make_private(home)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (home, *home.rglob("*"), outside)}
    assert modes == {"home": 0o700, "below": 0o700, "prefect.db": 0o600, "log": 0o600, "link": 0o644, "outside": 0o644}


def test_addresses_become_webhooks_where_they_can() -> None:
    """What only the server sees is told by the server, which has plain webhooks alone."""
    settings = settings_of(
        main={
            "notifications": [
                {"kind": "ping", "url": "https://health.example/abc/"},
                {"kind": "apprise", "url": "ntfys://ntfy.example/topic"},
                {"kind": "apprise", "url": "ntfy://topic"},
                {"kind": "apprise", "url": "mailtos://user:pass@mail.example"},
                {"kind": "apprise", "url": "json://127.0.0.1:8000/x", "events": ["shrink"]},
            ]
        },
        office={"notifications": [{"kind": "ping", "url": "https://health.example/abc"}]},
    )
    found = webhooks(settings)

    assert [each.url for each in found] == [
        "https://health.example/abc/fail",
        "https://ntfy.example",
        "https://ntfy.sh",
    ]
    assert found[1].body["topic"] == "topic"
    assert "ntfy" not in repr(Webhook("https://ntfy.sh/secret", {}))
