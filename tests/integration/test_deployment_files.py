"""The files an operator copies, read by the programs they are for: Docker Compose and systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.serve import server_environment
from tasks.adapters.host.settings_file import load_settings
from tests.cli import PROGRAM, run_program
from tests.settings import ALL_RISKS
from tests.stack.stack import Stack

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deployments" / "systemd"
PREFECT = ROOT / "deployments" / "prefect"
INSTALLED = "/opt/mailarchiver-backup/bin"


def compose_config(place: Path, environment_file: str) -> subprocess.CompletedProcess[str]:
    """Have Compose read our file, with everything that may be switched on in it."""
    file = place / "prefect.env"
    file.write_text(environment_file)
    command = ["docker", "compose", "--env-file", str(file), "--profile", "worker", "--profile", "postgres"]
    return subprocess.run(
        [*command, "--file", str(PREFECT / "compose.yaml"), "config", "--format", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def composed(tmp_path: Path) -> dict[str, Any]:
    """Give Compose's own view of the file, with the example's growth path taken: PostgreSQL for the server."""
    if shutil.which("docker") is None and not os.environ.get("CI"):
        pytest.skip("there is no docker program; tests/stack/machine.sh installs it")
    example = (PREFECT / "prefect.env.example").read_text()
    filled = example.replace("AUTH_STRING=", "AUTH_STRING=operator:secret").replace(
        "# PREFECT_POSTGRES_PASSWORD=", "PREFECT_POSTGRES_PASSWORD=grown"
    )
    filled = filled.replace("# PREFECT_DATABASE=", "PREFECT_DATABASE=").replace(":PASSWORD@", ":grown@")
    done = compose_config(tmp_path, filled)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_prefects_compose_file_is_closed_and_pinned(composed: dict[str, Any], tmp_path: Path) -> None:
    """Compose takes it; only this machine reaches the server, nobody without a password, and every image has a version."""
    services = composed["services"]
    assert set(services) == {"server", "worker", "postgres"}
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert [(port["host_ip"], port["target"]) for port in ports] == [("127.0.0.1", 4200)]
    for service in services.values():
        assert re.search(r":\d+\.\d+", service["image"]), service["image"]
    assert services["server"]["environment"]["PREFECT_API_DATABASE_CONNECTION_URL"].startswith(
        "postgresql+asyncpg://prefect:grown@postgres"
    )
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "grown"
    assert composed["name"] == "mailarchiver-backup-prefect"
    # Behind the guards that the program has for both.
    assert services["server"]["command"][:2] == ["mailarchiver-backup", "server"]
    assert services["worker"]["command"] == ["mailarchiver-backup", "worker"]
    assert not [name for service in services.values() for name in service["environment"] if "CORS" in name]

    refused = compose_config(tmp_path, (PREFECT / "prefect.env.example").read_text())
    assert refused.returncode != 0
    assert "PREFECT_SERVER_API_AUTH_STRING" in refused.stderr


def test_the_image_is_of_the_prefect_that_we_pin() -> None:
    pinned = re.search(r'"prefect==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert pinned
    assert f"FROM prefecthq/prefect:{pinned[1]}-" in (PREFECT / "Dockerfile").read_text()
    assert f"prefect-version: {pinned[1]}" in (ROOT / "prefect.yaml").read_text()


def test_serve_the_units_and_compose_set_the_same(composed: dict[str, Any], state_directory: Path) -> None:
    """What Prefect's defaults leave out for a server of one's own is set wherever a server or a worker is started."""
    ours = server_environment(ROOT / "settings.yaml", host="127.0.0.1", port=4200)
    of_server = {"DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED", "PREFECT_SERVER_UI_V2_ENABLED", "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"}  # fmt: skip
    of_worker = {"DO_NOT_TRACK", "PREFECT_WORKER_QUERY_SECONDS", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"}
    for name, variables in (("server", of_server), ("worker", of_worker)):
        unit = (UNITS / f"mailarchiver-backup-{name}.service").read_text()
        for variable in variables:
            assert f"\nEnvironment={variable}={ours[variable]}\n" in unit, variable
            assert composed["services"][name]["environment"][variable] == ours[variable], variable


def verify(place: Path) -> str:
    """Have systemd read the units in a directory; return what it complains of (it exits 0 even so)."""
    units = [path for path in sorted(place.iterdir()) if "@" not in path.name]
    units += [place / path.name.replace("@", "@main") for path in sorted(place.iterdir()) if "@" in path.name]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{place}:"},
    )  # fmt: skip
    # Units of the machine that ours name (docker.service) are not our business.
    return "\n".join(line for line in done.stderr.splitlines() if "mailarchiver-backup" in line)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """No key is misspelt, every program is there under the name that an installation gives it, and a mistake would be told."""
    if shutil.which("systemd-analyze") is None:
        problem = "systemd-analyze is missing; tests/stack/machine.sh installs it"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    programs = str(Path(sys.executable).parent)
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, programs))
    assert verify(tmp_path) == ""

    timer = tmp_path / "mailarchiver-backup-recover.timer"
    timer.write_text(timer.read_text().replace("OnCalendar=minutely", "OnCalendar=sometimes"))
    assert "sometimes" in verify(tmp_path)


@pytest.mark.parametrize(("name", "exposure"), [("server", 20), ("worker", 42)])
def test_the_units_have_what_their_programs_need_and_little_else(name: str, exposure: int) -> None:
    """By systemd's own measure, in tenths: most of the machine is taken from them, and a password is asked for."""
    unit = UNITS / f"mailarchiver-backup-{name}.service"
    assert f"\nExecStart={INSTALLED}/mailarchiver-backup {name}" in unit.read_text()
    assert (
        "\nEnvironmentFile=/etc/mailarchiver-backup/prefect.env\n" in unit.read_text()
    )  # without `-`: not there, not started
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing; tests/stack/machine.sh installs it")
    done = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=yes", f"--threshold={exposure}", str(unit)], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@pytest.mark.docker
def test_init_writes_settings_and_units_for_this_machine(small_stack: Stack, tmp_path: Path) -> None:
    """What it finds is in a private file that the program takes, systemd takes the units as they are, and nothing that stands is lost."""
    settings, units, backups = tmp_path / "own place" / "settings.yaml", tmp_path / "units", tmp_path / "backups"
    call = [PROGRAM, "init", "--settings", str(settings), "--units", str(units), "--repository", str(backups), "--json"]

    def init(*more: str) -> dict[str, Any]:
        code, out, err = run_program([*call, *more])
        assert code == 0, err
        told: dict[str, Any] = json.loads(out)
        return told

    # Other stacks of this machine may come and go meanwhile; ours is among what it finds by itself.
    found = init("--settings", str(tmp_path / "all.yaml"), "--units", str(tmp_path / "of all"))
    assert found["installations"]
    directories = [each.directory for each in load_settings(tmp_path / "all.yaml").installations.values()]
    assert small_stack.directory in directories

    first = init("--directory", str(small_stack.directory))
    assert first["installations"] == ["main"]
    password = settings.with_name("prefect.env")
    assert set(first["written"]) == {
        str(settings),
        str(password),
        *(str(units / path.name) for path in UNITS.iterdir()),
    }
    assert {path.stat().st_mode & 0o777 for path in (settings, password)} == {0o600}
    assert re.search(r"^PREFECT_SERVER_API_AUTH_STRING=operator:[\w-]{32}$", password.read_text(), re.MULTILINE)
    main = load_settings(settings).installations["main"]
    assert (main.directory, main.repository) == (small_stack.directory, backups)
    text = settings.read_text()
    assert "# Where its archives go" in text
    assert verify(units) == ""
    live = "".join(path.read_text() for path in units.iterdir())
    assert f"ExecStart={Path(sys.executable).parent}/mailarchiver-backup recover" in live
    accepted = settings.read_text().replace(
        "    # accept_risks: [unlocked_target]\n", f"    accept_risks: {ALL_RISKS}\n"
    )
    settings.with_name("accepting.yaml").write_text(accepted)
    settings.with_name("accepting.yaml").chmod(0o600)
    for file, code in ((settings, 1), (settings.with_name("accepting.yaml"), 0)):
        ended, said, err = run_program([PROGRAM, "doctor", "--settings", str(file)])
        assert ended == code, err
        assert "Nothing is in the way of a backup." in said

    again = init("--directory", str(small_stack.directory))
    assert (again["written"], again["left"]) == ([], [])
    settings.write_text(text.replace("method: hot", "method: online"))
    asked = init("--directory", str(small_stack.directory))
    assert (asked["written"], asked["left"]) == ([], [str(settings)])
    assert "method: online" in settings.read_text()
    forced = init("--directory", str(small_stack.directory), "--force")
    assert (forced["written"], settings.read_text()) == ([str(settings)], text)
    (kept,) = forced["kept"]
    assert "method: online" in Path(kept).read_text()
    assert Path(kept).stat().st_mode & 0o777 == 0o600

    nowhere = init(
        "--directory", str(tmp_path), "--settings", str(tmp_path / "none.yaml"), "--units", str(tmp_path / "none")
    )
    assert (nowhere["installations"], "no compose file" in nowhere["notes"][0]) == ([], True)
    assert "No Mail Archiver was found" in (tmp_path / "none.yaml").read_text()
    load_settings(tmp_path / "none.yaml")
    code, _, err = run_program([*call, "--units", str(settings / "x")])
    assert code == 1
    assert "cannot be made" in err
