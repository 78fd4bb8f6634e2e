"""The password of Prefect's server: the operator's own, or a random one that only this user reads."""

from __future__ import annotations

import os
import secrets
import sys
import urllib.parse
from pathlib import Path

from tasks.adapters.host.outside_files import PASSWORD, read_outside
from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.core.errors import BackupError, UsageError

AUTH_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
CLIENT_VARIABLE = "PREFECT_API_AUTH_STRING"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
FILE = "password.json"
# Of systemd's units: `init` writes it.
FILE_BESIDE_SETTINGS = "prefect.env"
USER = "operator"


def auth_string(settings: Path | None = None) -> str:
    """Give USER:PASSWORD: of the environment, else prefect.env beside the settings, else what a first start made.

    Made now where there is none: kept where only this user reads, and printed to stderr once.
    """
    return given_auth_string() or written_auth_string(settings) or kept_auth_string() or _make()


def require_auth_string() -> str:
    """Give USER:PASSWORD of the environment; raise UsageError where it has none."""
    given = given_auth_string()
    if given is None:
        raise UsageError(
            f"Prefect's server does not start without a password: {AUTH_VARIABLE} is not set",
            hint=f"`mailarchiver-backup init` writes one to {FILE_BESIDE_SETTINGS} beside the settings; `mailarchiver-backup serve` makes its own",
        )
    return given


def given_auth_string() -> str | None:
    """Give the USER:PASSWORD of the environment, or None. Raise UsageError where it is not of that form."""
    return _checked(os.environ.get(AUTH_VARIABLE, ""), AUTH_VARIABLE)


def written_auth_string(settings: Path | None) -> str | None:
    """Give the USER:PASSWORD of prefect.env beside the settings, which the units read too; None where it has none."""
    if settings is None:
        return None
    path = settings.resolve().with_name(FILE_BESIDE_SETTINGS)
    try:
        lines = read_outside(path, PASSWORD)[0].decode().splitlines()
    except FileNotFoundError:
        return None
    found = [line.partition("=")[2] for line in lines if line.startswith(f"{AUTH_VARIABLE}=")]
    return _checked(found[-1].strip().strip("\"'"), f"{AUTH_VARIABLE} in {path}") if found else None


def random_auth_string() -> str:
    """Give a USER:PASSWORD that nobody guesses."""
    return f"{USER}:{secrets.token_urlsafe(24)}"


def _checked(given: str, where: str) -> str | None:
    if not given:
        return None
    user, _, password = given.partition(":")
    if not user or not password:
        raise UsageError(f"{where} is not of the form USER:PASSWORD", hint="set both, or neither")
    return given


def kept_auth_string() -> str | None:
    """Give the USER:PASSWORD that a first start made; None where there was none."""
    path = state_subdirectory("prefect") / FILE
    found = read_json(path)
    if found is None:
        return None
    text = found.get("auth_string")
    if not isinstance(text, str) or ":" not in text:
        raise BackupError(f"{path} holds no password", hint="remove it: the next `serve` makes a new one")
    path.chmod(0o600)
    return text


def client_environment(settings: Path | None = None) -> dict[str, str]:
    """Give what a client of this machine's server needs beyond its environment: the password.

    A server elsewhere is told nothing: the password is not its own.
    """
    address = urllib.parse.urlsplit(os.environ.get("PREFECT_API_URL", "")).hostname
    if os.environ.get(CLIENT_VARIABLE) or address not in (None, *LOOPBACK):
        return {}
    secret = os.environ.get(AUTH_VARIABLE) or written_auth_string(settings) or kept_auth_string()
    return {CLIENT_VARIABLE: secret} if secret else {}


def _make() -> str:
    made = random_auth_string()
    write_json(state_subdirectory("prefect") / FILE, {"auth_string": made})
    print(f"made a password for Prefect's UI and API: {made} (`serve --show-password` shows it again)", file=sys.stderr)
    return made
