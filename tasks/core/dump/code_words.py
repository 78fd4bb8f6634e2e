"""What an operator is told of the code that a stranger's dump brings."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.core.byte_text import shown
from tasks.core.errors import Refused

LISTED = 20


def new_code(brought: Mapping[str, str], known: Mapping[str, str]) -> list[str]:
    """Name the code (name -> digest) that is not in the installation's current database, or says something else there."""
    return sorted(name for name, digest in brought.items() if known.get(name) != digest)


def refuse_code(archive: str, names: list[str]) -> None:
    """Raise Refused, naming it, where a stranger's dump brings code."""
    if not names:
        return
    listed = ", ".join(shown(name) for name in names[:LISTED])
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    raise Refused(
        f"{archive} brings code that the current database does not have, and the application would run it as its login: {listed}{more}",
        hint="Mail Archiver itself brings none; where you know it and trust it: --foreign --with-code; nothing was touched",
    )
