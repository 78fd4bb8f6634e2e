"""Whether a restore may take an archive for the installation's own: what is not is handled as a stranger's (P22)."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.core.archive.authenticity import Authenticity
from tasks.core.archive.layout import Kind
from tasks.core.archive.manifest import Manifest
from tasks.core.errors import Refused

FOREIGN_MEANS = (
    "--foreign restores it all the same: its SQL runs without rights beyond the new database, and its mail accounts"
    " stay in quarantine until `lift-quarantine`"
)

FRESH_HOST_HINT = (
    "this host knows no key that made it: give the installation's public key, which `doctor` prints, as --trusted-key;"
    " or say --foreign if you trust its maker, for its own compose file will run. A foreign archive's SQL runs"
    " without rights beyond the new database, and its mail accounts stay in quarantine"
)


@dataclass(frozen=True, slots=True)
class Words:
    """What an operator has said: the archive may be foreign, and the code that it brings may come too."""

    foreign: bool = False
    with_code: bool = False


def why_foreign(
    manifest: Manifest | None,
    authenticity: Authenticity,
    *,
    installation: str,
    project: str,
    system_identifier: str,
    has_key: bool,
) -> str:
    """Say why an archive is not known as the installation's own; "" where it is.

    A signature decides where there is one, and where the installation has a key all its own archives have one. Without
    a key, the id, the project and the cluster must be the installation's; `system_identifier` is "" where the server
    cannot be asked.
    """
    if manifest is None:
        return "it has no manifest: it was made by another program, or by the guide's script"
    if authenticity.is_own:
        return ""
    if authenticity.state != "unsigned" or has_key:
        return authenticity.reason or f"it is {authenticity}"
    compared = (
        ("the installation", manifest.installation, installation),
        ("the project", manifest.project, project),
        ("the cluster", manifest.database.system_identifier, system_identifier),
    )
    for what, theirs, ours in compared:
        if ours and theirs != ours:
            return f"it is of {what} {theirs!r}, not of {ours!r}"
    return ""


def require_words(name: str, why: str, words: Words, *, kind: Kind) -> None:
    """Raise Refused where an archive that is not the installation's own lacks the operator's word; `why` is "" for its own."""
    if not why:
        return
    if not words.foreign:
        raise Refused(f"{name} is not known as this installation's own: {why}", hint=FOREIGN_MEANS)
    if kind == "physical" and not words.with_code:
        raise Refused(
            f"{name} is a whole data directory of a foreign cluster ({why}): it brings its own code, roles and passwords,"
            " which this server would then run",
            hint="if you trust its maker: --foreign --with-code; a dump of the same data needs --foreign alone",
        )
