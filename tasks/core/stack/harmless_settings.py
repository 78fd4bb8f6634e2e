"""What of an application's settings its copy on staging may have: what can hold no secret. All else is left out, or replaced.

Settings are judged by kind, for secrets stand under any name. Switches, small numbers, levels of logging and the few
words that the runtime itself reads stay. What is named like a secret gets a value made for staging alone, since an
application may insist on having one; every other text is left out, so that the application's own default holds.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from tasks.core.stack.identify import plain_json

CONNECTIONS = "connectionstrings"
_SWITCH = re.compile(r"true|false|yes|no|on|off|enabled|disabled", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d{1,5}(?:\.\d{1,3})?")
_LEVEL = re.compile(r"trace|verbose|debug|information|info|warning|error|critical|fatal|none", re.IGNORECASE)
_PLAIN_ADDRESS = re.compile(r"http://[\w.*+\-\[\]:]*:\d{1,5}/?", re.ASCII)
# What the runtime reads before the application does, and how such a value looks.
_RUNTIME = {
    "tz": re.compile(r"[A-Za-z_]{1,20}(?:/[A-Za-z_+\-\d]{1,20}){1,2}|UTC"),
    "lang": re.compile(r"[A-Za-z]{1,3}(?:_[A-Z]{2})?(?:\.UTF-?8)?", re.IGNORECASE),
    "lc_all": re.compile(r"[A-Za-z]{1,3}(?:_[A-Z]{2})?(?:\.UTF-?8)?", re.IGNORECASE),
    "aspnetcore_environment": re.compile("Production|Staging|Development"),
    "dotnet_environment": re.compile("Production|Staging|Development"),
    "aspnetcore_http_ports": re.compile(r"\d{1,5}(?:[;,]\d{1,5})*"),
}
_ADDRESSES = "aspnetcore_urls"
_SECRET_NAME = re.compile(
    r"pass(?:word|wd|phrase)?(?![a-z])|password|passwd|passphrase|pwd|secret|token|credential|client_?id|key(?![a-z])|salt|(?:^|_)pin(?![a-z])"
    r"|dsn|totp|username|user_?name|login",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def staging_environment(production: Mapping[str, str], connection: str) -> dict[str, str]:
    """Choose what of production's environment its application gets on staging, where `connection` leads to staging's own database.

    >>> staging_environment({"OAuth__ClientSecret": "x", "Sync__Minutes": "15", "Proxy": "http://me:x@proxy"}, "Host=db").keys()
    dict_keys(['OAuth__ClientSecret', 'Sync__Minutes', 'ConnectionStrings__DefaultConnection'])
    """
    chosen: dict[str, str] = {}
    for name, value in production.items():
        if not name.casefold().startswith(CONNECTIONS):
            kept = harmless(name, value)
            if kept is not None:
                chosen[name] = kept
    # .NET compares names without case: a twin in other letters would lead to production's database.
    twins = [name for name in production if name.casefold() == f"{CONNECTIONS}__defaultconnection"]
    return chosen | dict.fromkeys(twins or ["ConnectionStrings__DefaultConnection"], connection)


def staging_settings_file(text: str, connection: str) -> str:
    """Do the same to a file of settings in JSON; one that cannot be read becomes an empty one."""
    try:
        found = json.loads(plain_json(text.lstrip("\ufeff")))
        chosen = _harmless_object(found) if isinstance(found, dict) else {}
    except (ValueError, RecursionError):
        chosen = {}
    chosen = {name: value for name, value in chosen.items() if not name.casefold().startswith(CONNECTIONS)}
    return json.dumps({**chosen, "ConnectionStrings": {"DefaultConnection": connection}}, indent=1)


def harmless(name: str, value: str) -> str | None:
    """Give the value that a setting may have on staging; None where it is to be left out."""
    last = re.split(r"__|:", name)[-1]
    if last.casefold().endswith(("_file", "path")):
        return None
    if _SWITCH.fullmatch(value) or not value:
        return value
    if _is_named_like_a_secret(name):
        return _another(value)
    if _NUMBER.fullmatch(value) or _LEVEL.fullmatch(value):
        return value
    if name.casefold() == _ADDRESSES:
        return ";".join(each for each in value.split(";") if _PLAIN_ADDRESS.fullmatch(each)) or None
    form = _RUNTIME.get(name.casefold())
    return value if form is not None and form.fullmatch(value) else None


def _harmless_object(found: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    chosen = {name: _harmless_value(f"{above}{name}", value) for name, value in found.items()}
    return {name: value for name, value in chosen.items() if value is not None}


def _harmless_value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _harmless_object(value, f"{name}:")
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        kept = harmless(name, str(value))
        return None if kept is None else type(value)(kept)
    return harmless(name, value) if isinstance(value, str) else None


def _is_named_like_a_secret(name: str) -> bool:
    words = "_".join(each[0] for each in _WORDS.finditer(name))
    return any(_SECRET_NAME.search(each) for each in (name, words))


def _another(value: str) -> str:
    """Make a value for staging alone; a number stays one, for the application reads it as such."""
    if _NUMBER.fullmatch(value):
        return "".join(secrets.choice("123456789") for each in value if each.isdecimal())
    return secrets.token_urlsafe(18)
