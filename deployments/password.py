"""The password of Prefect's server: the operator's own, or a random one that `serve` makes and keeps where only this user reads."""

from __future__ import annotations

import os
import secrets
import sys
import urllib.parse

from tasks.adapters.host.state import read_json, state_subdirectory, write_json
from tasks.core.errors import BackupError, UsageError

AUTH_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
CLIENT_VARIABLE = "PREFECT_API_AUTH_STRING"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
FILE = "password.json"
USER = "operator"


def auth_string() -> str:
    """Give USER:PASSWORD of the server: the environment's, else the one that a first start made.

    A password that is made is kept where only this user reads it, and printed to stderr once.
    """
    given = os.environ.get(AUTH_VARIABLE, "")
    if given:
        user, _, password = given.partition(":")
        if not user or not password:
            raise UsageError(f"{AUTH_VARIABLE} is not of the form USER:PASSWORD", hint="set both, or neither")
        return given
    return kept_auth_string() or _make()


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


def client_environment() -> dict[str, str]:
    """Give what a client of this machine's server needs beyond its environment: the password, where the environment has none for clients.

    A server elsewhere is told nothing: the password is not its own.
    """
    address = urllib.parse.urlsplit(os.environ.get("PREFECT_API_URL", "")).hostname
    if os.environ.get(CLIENT_VARIABLE) or address not in (None, *LOOPBACK):
        return {}
    secret = os.environ.get(AUTH_VARIABLE) or kept_auth_string()
    return {CLIENT_VARIABLE: secret} if secret else {}


def _make() -> str:
    made = f"{USER}:{secrets.token_urlsafe(24)}"
    write_json(state_subdirectory("prefect") / FILE, {"auth_string": made})
    print(f"made a password for Prefect's UI and API: {made} (`serve --show-password` shows it again)", file=sys.stderr)
    return made
