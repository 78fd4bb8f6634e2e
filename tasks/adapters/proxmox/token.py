"""An API token, from a file that only its owner reads. It is in no setting, parameter, log or error."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from tasks.adapters.host.outside_files import API_TOKEN, UnfitFile, read_outside
from tasks.core.errors import UsageError

_FORM = r"(?P<user>[^\s@:/!=]{1,64}@[A-Za-z][A-Za-z0-9._-]{0,31})!(?P<name>[A-Za-z][A-Za-z0-9._-]{0,63})[=:](?P<secret>[0-9a-fA-F-]{36})"
_HINT = "one line as Proxmox shows it once: USER@REALM!NAME=SECRET; chmod 0600"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a user: `user` with its realm, the token's `name`, and its secret, which is never shown."""

    user: str
    name: str
    secret: str = field(repr=False)


def read_token(path: Path) -> Token:
    """Read a token; raise UsageError where there is none, it has another form, or others may read it. Nothing of it is shown."""
    try:
        content, found = read_outside(path, API_TOKEN)
    except FileNotFoundError:
        raise UsageError(f"there is no token file {path}", hint=_HINT) from None
    except UnfitFile as error:
        raise UsageError(error.message, hint=_HINT) from None
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(found.st_mode)
        raise UsageError(f"other users may read the token file {path} (mode {mode:04o})", hint=f"chmod 0600 {path}")
    match = re.fullmatch(_FORM, content.decode("utf-8", "replace").strip())
    if match is None:
        raise UsageError(f"what the token file {path} holds is no API token", hint=_HINT)
    return Token(match["user"], match["name"], match["secret"])
