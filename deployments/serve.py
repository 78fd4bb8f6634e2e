"""`mailarchiver-backup serve`: Prefect's server, all deployments and a worker in one command, for a small host."""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from deployments.password import AUTH_VARIABLE, CLIENT_VARIABLE, auth_string
from tasks.adapters.host.files import make_directory, write_atomically
from tasks.adapters.host.listening import listen
from tasks.adapters.host.processes import Background, run, start_background
from tasks.adapters.host.state import state_subdirectory
from tasks.core.errors import BackupError
from tasks.core.policy.own_addresses import ADDRESS_VARIABLE, asked_at
from tasks.core.policy.settings import InstallationSettings, Settings

# Where our packages are: a checkout, or site-packages.
HOME = Path(__file__).resolve().parents[1]
# In a checkout a link to the list at its top, where `prefect deploy` looks for it; in a wheel a file.
PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
# Nothing is imported from the directory that we happen to be started in.
OWN_IMPORTS = {"PYTHONSAFEPATH": "1"}
WORKER_COMMAND = [sys.executable, "-m", "deployments.worker"]
START_SECONDS = 120.0
DEPLOY_SECONDS = 300.0


def rendered(prefect_file: Path, settings: Settings) -> dict[str, Any]:
    """Give prefect.yaml with one schedule for each installation of the settings, and none for what they do not have."""
    content: dict[str, Any] = yaml.safe_load(prefect_file.read_text())
    first = next(iter(settings.installations))
    # Prefect would ask git for one, nine times for each deployment, and take that of whatever lies around us.
    own_version = {"version": version("mailarchiver-backup"), "version_type": "prefect:simple"}
    for deployment in content["deployments"]:
        deployment.update(own_version)
        deployment["parameters"] = {**deployment.get("parameters", {}), "installation": first}
        deployment["schedules"] = [
            _schedule(template, name, installation, deployment["name"])
            for template in deployment.pop("schedules", [])
            for name, installation in settings.installations.items()
        ]
    return content


def _schedule(
    template: Mapping[str, Any], name: str, installation: InstallationSettings, deployment: str
) -> dict[str, Any]:
    chosen = installation.schedule
    wanted = {
        "automated-backup": chosen.backup,
        "complete-backup": chosen.complete,
        "online-backup": chosen.incremental,
        "restore-verification": chosen.verification,
        "copy-backups": chosen.copies if installation.copies else None,
        "host-backup": chosen.host if installation.host else None,
        "proxmox-backup": chosen.proxmox if installation.proxmox else None,
        "lxc-backup": chosen.lxc if installation.lxc else None,
        "vm-backup": chosen.vm if installation.vm else None,
        "proxmox-restore-verification": chosen.proxmox_verification
        if installation.proxmox and installation.proxmox.verification
        else None,
    }
    cron = wanted.get(deployment, template["cron"])  # None: not by itself
    if deployment == "restore-verification" and installation.verification.when == "never":
        cron = None
    return {
        "slug": template["slug"].replace("main", name),
        "cron": cron or template["cron"],
        "timezone": chosen.timezone,
        "active": cron is not None,
        "parameters": {**template.get("parameters", {}), "installation": name},
    }


def deploy(settings: Settings, environment: Mapping[str, str]) -> None:
    """Bring work pool (locked), deployments and automations to the server, and take away what is no longer wanted."""
    place = state_subdirectory("prefect")
    file = place / "prefect.yaml"
    write_atomically(file, yaml.safe_dump(rendered(PREFECT_FILE, settings), sort_keys=False).encode())
    run(
        [sys.executable, "-m", "deployments.deploy_process", str(file)],
        timeout_seconds=DEPLOY_SECONDS,
        environment=environment,
        directory=HOME,
        is_prefect=True,
    )


def server_address(host: str, port: int) -> str:
    """Give the address at which programs of this machine reach a server that listens on `host`."""
    return f"http://{asked_at(host)}:{port}"


def server_command(host: str, port: int, descriptor: int | None = None) -> list[str]:
    """Give the command that runs the server behind its guard, on a socket of ours where `descriptor` is one."""
    command = [sys.executable, "-m", "deployments.server", "--host", host, "--port", str(port)]
    return command if descriptor is None else [*command, "--fd", str(descriptor)]


def server_environment(settings_path: Path, *, host: str, port: int) -> dict[str, str]:
    """Give the environment of server, deployments and worker: what prefect's defaults leave out for a self-hosted server."""
    home = state_subdirectory("prefect") / "home"
    make_directory(home)
    secret = auth_string(settings_path)
    address = server_address(host, port)
    return {
        AUTH_VARIABLE: secret,
        CLIENT_VARIABLE: secret,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{address}/api",
        # Where browsers find the API; behind a reverse proxy the operator's own word, by which the server also knows its name.
        ADDRESS_VARIABLE: os.environ.get(ADDRESS_VARIABLE) or f"{address}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # The same for the library in worker and runs: it has a switch of its own.
        "DO_NOT_TRACK": "1",
        # The second UI asks an analytics service on the internet for its settings, even so; the first asks nobody.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        # Asked every second, as a worker by default does not, the server of an idle host is twice as busy.
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        # For limits that operators add: in memory, their leases are lost at a restart, and every later run is cancelled.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        # Heartbeats, by which the server sees a run die, at their shortest.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        **OWN_IMPORTS,
        "MAILARCHIVER_BACKUP_SETTINGS": str(settings_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }


def make_private(directory: Path) -> None:
    """Take from everybody else what former versions made readable: the files and directories below, without following links."""
    for parent, _, files, handle in os.fwalk(directory, follow_symlinks=False):
        os.fchmod(handle, 0o700)
        for name in files:
            path = Path(parent, name)
            if path.is_symlink():
                continue
            with suppress(FileNotFoundError):
                path.chmod(path.stat().st_mode & 0o700)


def serve(settings: Settings, settings_path: Path, *, host: str, port: int) -> None:
    """Run server, deployments and worker until a signal comes; print the UI's address once all is ready.

    Raise BackupError where the server or the worker ends by itself.
    """
    # Prefect makes its database, and what lies beside it, with the process's own mask.
    os.umask(0o077)
    environment = server_environment(settings_path, host=host, port=port)
    make_private(Path(environment["PREFECT_HOME"]))
    logs = state_subdirectory("prefect")
    address = server_address(host, port)
    # Held until we end: at no moment can another user's program answer in the server's place, and be told the password.
    with listen(host, port) as taken:
        command = server_command(host, port, taken.fileno())
        with start_background(
            command, environment=environment, log=logs / "server.log", pass_fds=(taken.fileno(),)
        ) as server:
            _wait_for_health(f"{address}/api/health", server)
            deploy(settings, environment)
            with start_background(WORKER_COMMAND, environment=environment, log=logs / "worker.log") as worker:
                print(f"ready: {address} (logs in {logs})", flush=True)
                while server.is_running() and worker.is_running():
                    time.sleep(0.5)
                name = "server" if not server.is_running() else "worker"
                raise BackupError(f"Prefect's {name} ended by itself", hint=f"see {logs / name}.log")


def _wait_for_health(url: str, server: Background) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):
            return
        if not server.is_running():
            raise BackupError("Prefect's server did not start", hint=f"see {server.log}")
        time.sleep(0.2)
    raise BackupError(f"Prefect's server does not answer at {url} after {START_SECONDS:g} s", hint=f"see {server.log}")
